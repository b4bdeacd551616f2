package dataset

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// listed makes a folder of images with a list in it.
func listed(t testing.TB, name, text string) (dir, file string) {
	t.Helper()
	dir = tree(t, "gut/0.png", "gut/1.png", "gut/2.png", "gut/3, die \"gute\".png", "schlecht/0.png", "schlecht/1.png", "masken/0.png", "masken/1.png",
		"masken/both/0.png")
	file = filepath.Join(dir, name)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return dir, file
}

const (
	listHeader = "path,split,label,mask\n"
	listTrain  = "gut/0.png,train,good,\ngut/1.png,train,good,\n"
)

func TestOpenList(t *testing.T) {
	train := []string{"gut/0.png good", "gut/1.png good"}
	test := []string{"gut/2.png good", "schlecht/0.png dent masken/0.png"}
	const taken = "train 2 good | test 1 good, 1 defective (dent 1) | masks 1 in masken | nothing left out"
	for _, c := range []struct {
		name, text  string
		opt         *OpenOptions
		train, test []string
		taken       string
		skipped     int
	}{
		{name: "commas", text: listHeader + listTrain + "gut/2.png,test,good,\nschlecht/0.png,test,dent,masken/0.png\n", train: train, test: test, taken: taken},
		{name: "semicolons, carriage returns, a byte order mark, other columns and capitals",
			text:  "\ufeffLabel;Path;Mask;Split;Datum\r\nOK;gut/0.png;;TRAIN;1.5.\r\ngood; gut/1.png ;;train;\"2;3\"\r\nnormal;gut/2.png;;Test;\r\ndent;schlecht/0.png;masken/0.png;test;",
			train: train, test: test, taken: strings.Replace(taken, "nothing left out", "left out: 1 unknown column: datum", 1)},
		{name: "tabs", text: "path\tsplit\tlabel\tmask\n" + strings.ReplaceAll(listTrain, ",", "\t") + "gut/2.png\ttest\tgood\t\nschlecht/0.png\ttest\tdent\tmasken/0.png\n",
			train: train, test: test, taken: taken},
		{name: "line ends of Macs", text: strings.ReplaceAll(listHeader+listTrain+"gut/2.png,test,good,\nschlecht/0.png,test,dent,masken/0.png\n", "\n", "\r"),
			train: train, test: test, taken: taken},
		{name: "objects", text: `{"path": "gut/0.png", "split": "train", "label": "good"}` + "\n\n" + `{"path":"gut/1.png","split":"train","label":"ok","mask":null}` + "\r\n" +
			`{"path":"gut/2.png","split":"test","label":"good","id":7}` + "\n" + `{"path":"schlecht/0.png","split":"test","label":"dent","mask":"masken/0.png"}`,
			train: train, test: test, taken: strings.Replace(taken, "nothing left out", "left out: 1 unknown column: id", 1)},
		{name: "objects with capitals", text: `{"Path": "gut/0.png", "LABEL": "good"}`, train: train[:1], taken: "train 1 good | no test images | nothing left out"},
		{name: "UTF-16", text: "\xff\xfe" + strings.Join(strings.Split("path\tlabel\ngut/0.png\tgood\n", ""), "\x00") + "\x00", train: train[:1],
			taken: "train 1 good | no test images | nothing left out"},
		{name: "quotes", text: listHeader + `"gut/3, die ""gute"".png",train,good,` + "\n", train: []string{`gut/3, die "gute".png good`}, taken: "train 1 good | no test images | nothing left out"},
		{name: "backslashes", text: listHeader + `gut\0.png,train,good,` + "\n", train: train[:1], taken: "train 1 good | no test images | nothing left out"},
		{name: "no split", text: "path,label\ngut/0.png,good\ngut/1.png,good\ngut/2.png,good\nschlecht/0.png,dent\nschlecht/1.png,scratch\n", train: train,
			test: []string{"gut/2.png good", "schlecht/0.png dent", "schlecht/1.png scratch"}, taken: "train 2 good | test 1 good, 2 defective (dent 1, scratch 1) | no masks | nothing left out"},
		{name: "a folder of masks, and a good image's mask", text: listHeader + listTrain + "gut/2.png,test,good,masken/1.png\nschlecht/0.png,test,dent,masken/both\n", train: train,
			test: []string{"gut/2.png good", "schlecht/0.png dent masken/both"}, taken: strings.Replace(taken, "nothing left out", "left out: 1 mask (not needed)", 1)},
		{name: "to test alone", text: listHeader + "gut/2.png,test,good,\nschlecht/0.png,test,dent,masken/0.png\n", opt: &OpenOptions{TestOnly: true}, test: test,
			taken: strings.Replace(taken, "train 2", "train 0", 1)},
		{name: "bad lines left out", text: listHeader + listTrain + "gut/9.png,train,good,\ngut/2.png,test,good,\nschlecht/0.png,test,dent,masken/0.png\n" +
			"schlecht/1.png,test,dent,masken/9.png\n", opt: &OpenOptions{SkipBad: true}, train: train, test: test,
			taken: strings.Replace(taken, "nothing left out", "left out: 2 bad files (skip_bad)", 1), skipped: 2},
		{name: "no UTF-8", text: "path,label,note\ngut/0.png,good,\xe4\n", train: train[:1], taken: "train 1 good | no test images | left out: 1 unknown column: note"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir, file := listed(t, "list.csv", c.text)
			set, err := OpenList(file, c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if got := short(t, dir, set.Train); !slices.Equal(got, c.train) {
				t.Errorf("train: got %q, want %q", got, c.train)
			}
			if got := short(t, dir, set.Test); !slices.Equal(got, c.test) {
				t.Errorf("test: got %q, want %q", got, c.test)
			}
			if got := set.Taken().String(); got != c.taken || set.Layout != "list" || set.Category != "part" || len(set.Skipped) != c.skipped {
				t.Errorf("got  %s, %s, %s, skipped %v\nwant %s, list, part, %d skipped", got, set.Layout, set.Category, set.Skipped, c.taken, c.skipped)
			}
		})
	}
}

func TestOpenListErrors(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
		named      string
	}{
		{"empty", "", ErrList, "it is empty"},
		{"a byte order mark alone", "\ufeff\n", ErrList, "it is empty"},
		{"zeros", "path,label\x00\n", ErrList, "in UTF-8"},
		{"an array", `[{"path":"gut/0.png"}]`, ErrList, "one object per line"},
		{"no header", "gut/0.png,train,good,\n", ErrList, "line 1 names no column path"},
		{"no label", "path,split\ngut/0.png,train\n", ErrList, "no column label"},
		{"a column twice", "path,label,path\na,good,b\n", ErrList, "the column path twice"},
		{"header alone", listHeader, ErrList, "lists no image"},
		{"a field too many", listHeader + "gut/0.png,train,good,,\n", ErrList, "line 2"},
		{"an open quote", listHeader + listTrain + "\"gut/2.png,train,good,\n", ErrList, "line 4"},
		{"a split of another name", listHeader + listTrain + "gut/2.png,val,good,\n", ErrList, `line 4: the split is "val"`},
		{"some splits", listHeader + listTrain + "gut/2.png,,good,\n", ErrList, "line 4: not a usable list of images: the split is empty"},
		{"no path", listHeader + ",train,good,\n", ErrList, "line 2: the path is empty"},
		{"no label in a line", listHeader + listTrain + "gut/2.png,test,,\n", ErrList, "line 4: the label is empty"},
		{"a number for a label", listHeader + "gut/0.png,train,0,\n", ErrList, `line 2: the label is "0"`},
		{"a truth value for a label", listHeader + "gut/0.png,train,False,\n", ErrList, `line 2: the label is "False"`},
		{"a defect to train on", listHeader + listTrain + "gut/2.png,train,gut,\n", ErrList, `line 4: not a usable list of images: the label is "gut", to train on`},
		{"a word for good that is none", "path,label\ngut/0.png,gut\nschlecht/0.png,schlecht\n", ErrNoGood, "write good"},
		{"twice", listHeader + listTrain + "gut/0.png,test,good,\n", ErrList, "line 4: the image \"gut/0.png\" is that of line 2"},
		{"twice by other names", listHeader + listTrain + "gut/../gut/0.png,test,good,\n", ErrTwice, "name it in one line"},
		{"control characters", listHeader + "\"gut/\x1b[0.png\",train,good,\n", ErrList, "line 2"},
		{"an image that is not there", listHeader + listTrain + "gut/9.png,train,good,\n", ErrMissing, "line 4"},
		{"a folder", listHeader + listTrain + "gut,train,good,\n", ErrMissing, "line 4"},
		{"a mask that is not there", listHeader + listTrain + "schlecht/0.png,test,dent,masken/7.png\n", ErrMissing, "line 4"},
		{"a mask for one of two", listHeader + listTrain + "schlecht/0.png,test,dent,masken/0.png\nschlecht/1.png,test,dent,\n", ErrImageWithoutMask, "schlecht/1.png"},
		{"one mask for two", listHeader + listTrain + "schlecht/0.png,test,dent,masken/0.png\nschlecht/1.png,test,dent,masken/0.png\n", ErrSharedMask, "masken/0.png"},
		{"its own mask", listHeader + listTrain + "schlecht/0.png,test,dent,schlecht/0.png\n", ErrList, "line 4"},
		{"nothing to train on", listHeader + "gut/0.png,test,good,\n", ErrNoGood, "split train"},
		{"no JSON", "{\"path\":\"gut/0.png\",\"label\":\"good\"}\n{\"path\":\n", ErrList, "line 2"},
		{"a number in JSON", `{"path":"gut/0.png","label":1}`, ErrList, "line 1: label is 1, no text"},
		{"a label twice in JSON", `{"path":"gut/0.png","label":"good","label":"dent"}`, ErrList, "line 1: label is there twice"},
		{"a label twice in JSON, once null", `{"path":"gut/0.png","label":null,"Label":"dent"}`, ErrList, "line 1: Label is there twice"},
		{"an array in a line of JSON", "{\"path\":\"gut/0.png\",\"label\":\"good\"}\n[1]\n", ErrList, "line 2: no JSON object"},
		{"JSON without UTF-8", "{\"path\":\"gut/\xe4.png\",\"label\":\"good\"}", ErrList, "line 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, file := listed(t, "list.csv", c.text)
			_, err := OpenList(file, nil)
			if !errors.Is(err, c.want) || !containsAll(err, "dataset: ", c.named) {
				t.Errorf("got error %v, want %v naming %s", err, c.want, c.named)
			}
		})
	}
	dir := t.TempDir()
	if _, err := OpenList(filepath.Join(dir, "gone.csv"), nil); !errors.Is(err, os.ErrNotExist) || !containsAll(err, "gone.csv", "check the path") {
		t.Errorf("missing: got error %v", err)
	}
	if _, err := OpenList(dir, nil); !errors.Is(err, ErrList) || !containsAll(err, dir, "folder") {
		t.Errorf("folder: got error %v", err)
	}
	if _, err := OpenList(dir, &OpenOptions{Holdout: 2}); !containsAll(err, "Holdout") {
		t.Errorf("holding all out: got error %v", err)
	}
}

// FuzzList parses any list: its rows name different images, with labels and
// splits that mean something; an error is one short line.
func FuzzList(f *testing.F) {
	for _, text := range []string{
		listHeader + listTrain, "\ufeffLabel;Path\r\nOK;\"a;\"\"b\"\r\n", "path\tlabel\na\tx\n", `{"path":"a","label":"good"}`, "{}\n{", "[", "\xff\xfe",
		"path,label\na,1e3\n", "path,label\n\"a\nb\",good\n", "label,path,label2\n,,\n", "", "path,path,label\n", `{"path":"a","label":"x","mask":[1]}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		rows, _, err := parseList(data)
		if err != nil {
			if text := err.Error(); len(rows) > 0 || len(text) > 4000 || !containsAll(err) {
				t.Fatalf("got %d rows, error %q, want none and one short line", len(rows), text)
			}
			return
		}
		seen := make(map[string]bool)
		for _, r := range rows {
			if r.path == "" || r.label == "" || seen[r.path] || r.line < 1 || !slices.Contains([]string{"", "train", "test"}, r.split) {
				t.Fatalf("got the row %+v", r)
			}
			seen[r.path] = true
		}
	})
}

func ExampleOpenList() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	for name, text := range map[string]string{"1.png": "", "2.png": "", "7.png": "",
		"list.csv": "path;split;label\n1.png;train;good\n2.png;test;good\n7.png;test;scratch\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			fmt.Println(err)
			return
		}
	}
	set, err := OpenList(filepath.Join(dir, "list.csv"), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(set.Taken())
	// Output: train 1 good | test 1 good, 1 defective (scratch 1) | no masks | nothing left out
}
