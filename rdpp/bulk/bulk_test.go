package bulk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/johannesboyne/gofakes3"
	"github.com/johannesboyne/gofakes3/backend/s3mem"

	"rdpp/rdpp/share"
	"rdpp/rdpp/testmain"
)

// write writes files in a folder, by their names.
func write(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
}

var work = Work{Model: strings.Repeat("ab", 32), Settings: json.RawMessage(`{"threshold": 1}`)}

// listed is a batch of a list of so many images.
func listed(t testing.TB, images int, opt *Options) *Batch {
	t.Helper()
	dir := t.TempDir()
	var text strings.Builder
	for i := range images {
		fmt.Fprintf(&text, "%08d.png\n", i)
	}
	write(t, dir, map[string]string{"list": text.String()})
	b, err := Make(context.Background(), filepath.Join(dir, "out"), find(t, filepath.Join(dir, "list")), work, opt)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func find(t testing.TB, named string) *Source {
	t.Helper()
	s, err := Find(named)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// names are all images of a batch.
func names(t *testing.T, b *Batch) (all []string) {
	t.Helper()
	for piece := range b.Pieces() {
		some, err := b.Names(piece)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, some...)
	}
	return all
}

func TestSources(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", map[string]string{
		"sorted": "a.png\nb.png\n", "unsorted": "b.png\n\na b.png\r\n/z/c.png\ns3://x/d.png", "mark": "\ufeffa.png", "twice": "b\na\nb\n", "zero": "a\x00b\n",
		"empty": "\n\n", "long": "a\n" + strings.Repeat("x", longestLine+1),
		"dir/a/1.png": "", "dir/a.png": "", "dir/a_heatmap.png": "", "dir/.hidden.png": "", "dir/.h/2.png": "", "dir/a/deep/er.JPG": "", "dir/text.txt": "",
		"table": "path,label\na.png,good\n", "lines": `{"path": "a.png"}` + "\n", "braced": "{a}.png\n", "none/text.txt": "", "odd/a\nb.png": "",
	})
	root, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		named  string
		want   []string
		prefix string
		path   string // of the first one
		err    string
	}{
		{"sorted", []string{"a.png", "b.png"}, "", root + "/a.png", ""},
		{"unsorted", []string{"/z/c.png", "a b.png", "b.png", "s3://x/d.png"}, "", "/z/c.png", ""},
		{"mark", []string{"a.png"}, "", root + "/a.png", ""},
		{"./dir/", []string{"a.png", "a/1.png", "a/deep/er.JPG"}, "dir/", root + "/dir/a.png", ""}, // as text ascends, not as folders do
		{"twice", nil, "", "", `"b" is there twice`},
		{"braced", []string{"{a}.png"}, "", root + "/{a}.png", ""},
		{"zero", nil, "", "", "line 1: a zero byte"},
		{"table", nil, "", "", "table, line 1: this is a list in CSV or JSON"},
		{"lines", nil, "", "", "lines, line 1: this is a list in CSV or JSON"},
		{"long", nil, "", "", "line 2: more than"},
		{"empty", nil, "", "", "no images in empty"},
		{"none", nil, "", "", "no images in none"},
		{"odd", nil, "", "", "has a line feed"},
	} {
		b, err := Make(t.Context(), filepath.Join(t.TempDir(), "out"), find(t, c.named), work, nil)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) || strings.Contains(err.Error(), "writing") { // which has not failed
				t.Errorf("%s: got %v, want %q", c.named, err, c.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.named, err)
			continue
		}
		if got := names(t, b); !slices.Equal(got, c.want) || b.Prefix != c.prefix || b.Path(got[0]) != c.path {
			t.Errorf("%s: got %q, prefix %q, the first at %s, want %q, %q, %s", c.named, got, b.Prefix, b.Path(got[0]), c.want, c.prefix, c.path)
		}
	}
	if _, err := Find("nowhere"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nowhere: got %v, want %v", err, os.ErrNotExist)
	}
	if s := find(t, "s3://parts/a/b"); s.Root != "s3://parts/" || s.Prefix != s.Root || s.below != "a/b/" {
		t.Errorf("s3: got %+v, want what is below a/b/", s)
	}
}

// TestMake: what is there is opened by who wants the same, and by nobody else.
func TestMake(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", map[string]string{"list": "a\nb\nc\n", "other": "a\nb\n", "dir/a.png": ""})
	list := find(t, "list")
	made := make([]*Batch, 8)
	var group sync.WaitGroup
	for i := range made {
		group.Go(func() {
			var err error
			if made[i], err = Make(t.Context(), "out", list, work, nil); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for _, b := range made {
		if b == nil || b.ID() != made[0].ID() {
			t.Fatalf("at once: got %v, want %v", b, made[0])
		}
	}
	listName, indexName := filepath.Base(made[0].place.path(made[0].listName())), filepath.Base(made[0].place.path(made[0].indexName()))
	testmain.WantFiles(t, "out", "batch.json", indexName, listName)
	testmain.WantContent(t, "out/"+listName, "a\nb\nc\n")
	for _, c := range []struct {
		what   string
		source *Source
		work   Work
		opt    *Options
		fine   bool
	}{
		{"the same", list, Work{work.Model, json.RawMessage("{\"threshold\":\n1}")}, &Options{Shards: 3}, true},
		{"another model", list, Work{strings.Repeat("0", 64), work.Settings}, nil, false},
		{"other settings", list, Work{work.Model, json.RawMessage(`{"threshold":2}`)}, nil, false},
		{"another list", find(t, "other"), work, nil, false},
		{"a folder", find(t, "dir"), work, nil, false},
		{"other pieces", list, work, &Options{PerPiece: 2}, false},
	} {
		_, err := Make(t.Context(), "out", c.source, c.work, c.opt)
		if c.fine != (err == nil) || err != nil && (!errors.Is(err, ErrOther) || !strings.Contains(err.Error(), "name another folder")) {
			t.Errorf("%s: got %v, want %v: %v", c.what, err, ErrOther, !c.fine)
		}
	}
	write(t, ".", map[string]string{"list": "a\nb\nd\n"})
	if _, err := Make(t.Context(), "out", list, work, nil); !errors.Is(err, ErrOther) {
		t.Errorf("a list that has changed: got %v, want %v", err, ErrOther)
	}
	if _, err := Open("dir"); !errors.Is(err, ErrNone) {
		t.Errorf("no batch: got %v, want %v", err, ErrNone)
	}
	for name, content := range map[string]string{"batch.json": "{}", listName: "a\n", indexName: "12345678"} {
		before, err := os.ReadFile("out/" + name)
		if err != nil {
			t.Fatal(err)
		}
		write(t, "out", map[string]string{name: content})
		if _, err := Open("out"); err == nil || !strings.Contains(err.Error(), "out/") {
			t.Errorf("damaged %s: got %v, want an error that names the file", name, err)
		}
		write(t, "out", map[string]string{name: string(before)})
	}
	if _, err := Open("out"); err != nil {
		t.Errorf("mended: got %v", err)
	}
}

// TestMakeAtOnce: machines whose locks do not reach each other, and that see other images meanwhile, leave one whole batch.
func TestMakeAtOnce(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", map[string]string{"in/a.png": ""})
	lists := make([]string, 6)
	errs := make([]error, len(lists))
	var group sync.WaitGroup
	if err := os.Mkdir("out", 0o777); err != nil {
		t.Fatal(err)
	}
	for i := range lists { // each of another list, as images arrive
		write(t, ".", map[string]string{fmt.Sprintf("list%d", i): strings.Repeat("x", i) + "a.png\nz.png\n"})
		source := find(t, fmt.Sprintf("list%d", i))
		group.Go(func() { errs[i] = create(t.Context(), disk("out"), "out", source, work, &Options{PerPiece: 1}) })
	}
	group.Wait()
	b, err := Open("out")
	if err != nil {
		t.Fatal(err)
	}
	first := names(t, b)
	if err := b.checkList(t.Context()); err != nil || len(first) != 2 {
		t.Errorf("got %q, %v, want the names of one list", first, err)
	}
	made := 0
	for i, err := range errs {
		switch {
		case err == nil:
			made++
			if want := strings.Repeat("x", i) + "a.png"; first[0] != want {
				t.Errorf("got the image %q, want %q of list %d, which was first", first[0], want, i)
			}
		case !errors.Is(err, fs.ErrExist):
			t.Errorf("list %d: got %v, want %v", i, err, fs.ErrExist)
		}
	}
	if made != 1 {
		t.Errorf("got %d that were first, want one", made)
	}
	// One that comes too late with another list spoils nothing.
	if err := create(t.Context(), disk("out"), "out", find(t, "in"), work, &Options{PerPiece: 1}); !errors.Is(err, fs.ErrExist) {
		t.Errorf("too late: got %v, want %v", err, fs.ErrExist)
	}
	if b, err := Open("out"); err != nil || !slices.Equal(names(t, b), first) || b.checkList(t.Context()) != nil {
		t.Errorf("too late: got %v, want the batch as it was", err)
	}
	testmain.WantFiles(t, "out", "batch.json", filepath.Base(b.place.path(b.indexName())), filepath.Base(b.place.path(b.listName())))
}

// TestMakeOther: neither another folder of a bucket nor the folder that a list lies in passes for what was listed.
func TestMakeOther(t *testing.T) {
	t.Chdir(t.TempDir())
	write(t, ".", map[string]string{"list": "a.png\n", "a.png": ""})
	store := httptest.NewServer(gofakes3.New(s3mem.New()).Server())
	defer store.Close()
	for name, value := range map[string]string{"AWS_ENDPOINT_URL": store.URL, "AWS_REGION": "us-east-1", "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"} {
		t.Setenv(name, value)
	}
	for _, path := range []string{"/parts", "/parts/a/1.png", "/parts/b/1.png"} {
		r, err := http.NewRequest(http.MethodPut, store.URL+path, http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		if answer.StatusCode != http.StatusOK {
			t.Fatalf("%s: got status %s, want 200", path, answer.Status)
		}
	}
	for out, c := range map[string]struct {
		named string
		same  []string
		other []string
	}{
		"store": {"s3://parts/a", []string{"s3://parts/a/"}, []string{"s3://parts/b", "s3://parts", "s3://other/a", "list", "."}},
		"list":  {"list", []string{"./list"}, []string{".", "s3://parts/a"}},
		"dir":   {".", []string{"./"}, []string{"list"}},
	} {
		for _, named := range append([]string{c.named}, c.same...) {
			if _, err := Make(t.Context(), "out/"+out, find(t, named), work, nil); err != nil {
				t.Errorf("%s by %s: got %v", c.named, named, err)
			}
		}
		for _, named := range c.other {
			if _, err := Make(t.Context(), "out/"+out, find(t, named), work, nil); !errors.Is(err, ErrOther) {
				t.Errorf("%s by %s: got %v, want %v", c.named, named, err, ErrOther)
			}
		}
	}
}

// TestPieces: shares have all pieces, each one once; short lists have one for each share.
func TestPieces(t *testing.T) {
	for _, c := range []struct {
		images, shards, perPiece int
		pieces, size             int // of the first
	}{
		{1, 1, 0, 1, 1}, {2500, 1, 0, 3, 1000}, {2500, 1, 1000, 3, 1000}, {10, 4, 0, 5, 2}, {3, 8, 0, 3, 1}, {9000, 4, 0, 9, 1000}, {7, 2, 2, 4, 2},
	} {
		b := listed(t, c.images, &Options{PerPiece: c.perPiece, Shards: c.shards})
		if b.Pieces() != c.pieces || b.Size(0) != min(c.size, c.images) {
			t.Errorf("%+v: got %d pieces, the first of %d", c, b.Pieces(), b.Size(0))
		}
		next, images := 0, 0
		for i := range c.shards {
			from, to := share.Share{I: i, N: c.shards}.Range(b.Pieces())
			if from != next {
				t.Errorf("%+v: share %d begins at %d, want %d", c, i, from, next)
			}
			next = to
		}
		for piece := range b.Pieces() {
			images += b.Size(piece)
		}
		if next != b.Pieces() || images != c.images || len(names(t, b)) != c.images {
			t.Errorf("%+v: got %d pieces in shares and %d images", c, next, images)
		}
	}
}

func TestPlace(t *testing.T) {
	b := listed(t, 2100, &Options{PerPiece: 1}) // three folders
	c := b.Counter()
	for piece := range b.Pieces() {
		if piece != 1234 && piece != 7 {
			write(t, filepath.Dir(b.Result(piece)), map[string]string{filepath.Base(b.Result(piece)): ""}) // as Place would, unsynced
		}
	}
	for _, content := range []string{"first", "second"} { // whose work was done already
		if err := b.Place(7, []byte(content)); err != nil {
			t.Fatal(err)
		}
		testmain.WantContent(t, b.Result(7), "first")
	}
	for range 2 { // folders that are whole are not read again
		if pieces, images, err := c.Count(); pieces != 2099 || images != 2099 || err != nil {
			t.Errorf("got %d pieces of %d images, %v, want 2099", pieces, images, err)
		}
	}
	if done, err := b.Done(1234); done || err != nil {
		t.Errorf("missing: got %v, %v", done, err)
	}
	if err := b.Place(1234, nil); err != nil {
		t.Fatal(err)
	}
	if pieces, _, err := c.Count(); pieces != 2100 || err != nil {
		t.Errorf("all: got %d, %v", pieces, err)
	}
}

func FuzzNames(f *testing.F) {
	for _, seed := range []string{"a\nb\n", "\ufeffa\r\n\r\n", "a\x00", "\n", "ü/ \xff"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for name, err := range namesIn(strings.NewReader(text)) {
			if err != nil {
				return
			}
			if name == "" || strings.ContainsAny(name, "\n\x00") || !strings.Contains(text, name) {
				t.Errorf("got the name %q from %q", name, text)
			}
		}
	})
}
