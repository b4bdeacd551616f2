package dataset

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// under returns names in a folder.
func under(dir string, names ...string) []string {
	for i := range names {
		names[i] = dir + "/" + names[i]
	}
	return names
}

func TestTaken(t *testing.T) {
	for _, c := range []struct {
		name  string
		files []string
		opt   *OpenOptions
		want  string
	}{
		{name: "all", files: append(numbered("train/good", 3), "test/good/0.png", "test/cut/0.png", "test/cut/1.png", "test/bent/0.png",
			"ground_truth/cut/0_mask.png", "ground_truth/cut/1_mask.png", "ground_truth/bent/0.png"),
			want: "train 3 good | test 1 good, 3 defective (bent 1, cut 2) | masks 3 in ground_truth | nothing left out"},
		{name: "no masks, readme and licence", files: []string{"train/good/0.png", "test/good/0.png", "test/defect/0.png", "readme.txt", "license.txt"},
			want: "train 1 good | test 1 good, 1 defective (defect 1) | no masks | left out: 2 files of no image type"},
		{name: "nested good images", files: slices.Concat(numbered("train/good/camera0", 3), numbered("train/good/camera1", 4), []string{"train/good/x.png"}),
			want: "train 1 good | no test images | left out: 7 images in train/good/camera0/, train/good/camera1/ (subfolders: recursive)"},
		{name: "nested good images, taken", files: slices.Concat(numbered("train/good/camera0", 3), numbered("train/good/camera1", 4), []string{"train/good/x.png"}),
			opt: &OpenOptions{Recursive: true}, want: "train 8 good | no test images | nothing left out"},
		{name: "nested in a plain folder", files: append(numbered("2024", 2), "x.png"),
			want: "train 1 good | no test images | left out: 2 images in 2024/ (subfolders: recursive)"},
		{name: "nested in a plain folder, taken", files: append(numbered("2024/05", 2), "x.png", "masks/y.png"), opt: &OpenOptions{Recursive: true},
			want: "train 3 good | no test images | left out: 1 mask in masks/ (not needed)"},
		{name: "nested types, masks beside them", files: slices.Concat(numbered("good", 4), []string{"NG/dent/0.png", "NG/dent/1.png", "NG/stain/0.png",
			"mask/dent/0.png", "mask/dent/1.png", "mask/stain/0.png"}),
			want: "train 3 good | test 1 good, 3 defective (NG/dent 2, NG/stain 1) | masks 3 in mask | nothing left out"},
		{name: "nested types, masks in as deep folders", files: []string{"good/0.png", "good/1.png", "NG/dent/0.png", "Ground Truth/NG/dent/0_gt.png"},
			want: "train 1 good | test 1 good, 1 defective (NG/dent 1) | masks 1 in Ground Truth | nothing left out"},
		{name: "sub-folders of defective images beside images", files: []string{"good/0.png", "good/1.png", "NG/0.png", "NG/old/1.png"},
			want: "train 1 good | test 1 good, 1 defective (NG 1) | no masks | left out: 1 image in NG/old/ (subfolders: recursive)"},
		{name: "images and masks in a type's folder", files: []string{"OK/0.png", "OK/1.png", "NG/images/0.png", "NG/masks/0.png"},
			want: "train 1 good | test 1 good, 1 defective (NG 1) | masks 1 in NG/masks | nothing left out"},
		{name: "a type's masks beside it", files: []string{"OK/0.png", "OK/1.png", "NG/0.png", "NG_mask/0.png", "OK_mask/0.png"},
			want: "train 1 good | test 1 good, 1 defective (NG 1) | masks 1 in NG_mask | left out: 1 mask in OK_mask/ (not needed)"},
		{name: "masks in test", files: []string{"Train/good/0.png", "Test/good/0.png", "Test/NG/0.png", "Test/MASK/0.png"},
			want: "train 1 good | test 1 good, 1 defective (NG 1) | masks 1 in Test/MASK | nothing left out"},
		{name: "capitals", files: []string{"TRAIN/Good/0.png", "Test/GOOD/0.png", "Test/dent/0.png", "Ground_Truth/dent/0.png"},
			want: "train 1 good | test 1 good, 1 defective (dent 1) | masks 1 in Ground_Truth | nothing left out"},
		{name: "btad in capitals", files: []string{"Train/OK/0.bmp", "Test/OK/0.bmp", "Test/KO/0.bmp", "GT/KO/0.png"},
			want: "train 1 good | test 1 good, 1 defective (KO 1) | masks 1 in GT | nothing left out"},
		{name: "names of jpeg", files: under("good", "0.jfif", "1.JPE", "2.jpg", "3.jif", "4.pjpeg"), want: "train 5 good | no test images | nothing left out"},
		{name: "loco", files: []string{"train/good/0.png", "validation/good/0.png", "validation/good/1.png", "test/good/0.png", "test/logical/0.png", "ground_truth/logical/0/000.png",
			"ground_truth/logical/0/001.png", "defects_config.json"},
			want: "train 1 good | test 1 good, 1 defective (logical 1) | masks 1 in ground_truth | " +
				"left out: 2 images in validation/good/ (not used by the layout), 1 file of no image type"},
		{name: "oct", files: []string{"train/NORMAL/1.jpeg", "train/CNV/1.jpeg", "train/DME/1.jpeg", "test/NORMAL/2.jpeg", "test/CNV/2.jpeg", "test/DME/2.jpeg",
			"test/DRUSEN/2.jpeg", "val/NORMAL/3.jpeg", "train/NORMAL/._1.jpeg"},
			want: "train 1 good | test 1 good, 3 defective (CNV 1, DME 1, DRUSEN 1) | no masks | " +
				"left out: 3 images in train/CNV/, train/DME/, val/NORMAL/ (not used by the layout), 1 hidden file"},
		{name: "heat maps by their names", files: under("good", "0.png", "0_heatmap.png", "0_heatmap_2.png", "x_heatmap.png"),
			want: "train 2 good | no test images | left out: 2 heat maps of infer image"},
		{name: "masks of good images beside them", files: under("good", "0.png", "0_mask.png"),
			want: "train 1 good | no test images | left out: 1 mask in good/ (not needed)"},
		{name: "types without images", files: []string{"train/good/0.png", "test/good/0.png", "test/cut/", "test/bent/thumbs.txt", "test/dent/0.png", "ground_truth/cut/"},
			want: "train 1 good | test 1 good, 1 defective (dent 1) | no masks | left out: 1 file of no image type, 2 folders without images: test/bent/, test/cut/"},
		{name: "a type without images beside good", files: []string{"good/0.png", "good/1.png", "NG/0.png", "OK2/"},
			want: "train 1 good | test 1 good, 1 defective (NG 1) | no masks | left out: 1 folder without images: OK2/"},
		{name: "a link to an image to train on", files: []string{"train/good/0.png", "test/good/1.png", "test/dent/2.png", "test/good/0.png -> ../../train/good/0.png"},
			want: "train 1 good | test 2 good, 1 defective (dent 1) | no masks | 1 test image is a copy of one to train on: test/good/0.png | nothing left out"},
		{name: "a link to a folder around it", files: []string{"good/0.png", "good/loop -> .."}, opt: &OpenOptions{Recursive: true},
			want: "train 1 good | no test images | nothing left out"},
		{name: "a link to nothing", files: []string{"good/0.png", "good/1.png -> nowhere.png"}, want: "train 1 good | no test images | left out: 1 link to nothing"},
		{name: "a name that cannot be printed", files: []string{"good/0.png", "good/\xe4\x1b/1.png"},
			want: `train 1 good | no test images | left out: 1 image in good/\xe4\x1b/ (subfolders: recursive)`},
		{name: "many folders", files: []string{"good/0.png", "good/a/0.png", "good/b/0.png", "good/c/0.png", "good/d/0.png", "good/e/0.png", "good/f/0.png"},
			want: "train 1 good | no test images | left out: 6 images in good/a/, good/b/, good/c/, good/d/ and 2 more (subfolders: recursive)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var files, links []string
			for _, name := range c.files {
				if strings.Contains(name, " -> ") {
					links = append(links, name)
				} else {
					files = append(files, name)
				}
			}
			dir := tree(t, files...)
			for _, link := range links {
				name, to, _ := strings.Cut(link, " -> ")
				if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
					t.Fatal(err)
				}
			}
			set, err := Open(dir, c.opt)
			if err != nil {
				t.Fatal(err)
			}
			if got := set.Taken().String(); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// Test images with the bytes of an image to train on are told, of whatever size they are; those that have the size alone, or the
// middle too, are none.
func TestCopies(t *testing.T) {
	dir := tree(t, "train/good/", "test/good/", "test/dent/")
	large := bytes.Repeat([]byte("0123456789abcdef"), 1<<10)
	changed := func(at int) []byte {
		b := bytes.Clone(large)
		b[at]++
		return b
	}
	for name, content := range map[string][]byte{
		"train/good/0.png": large, "train/good/1.png": []byte("small"), "train/good/2.png": changed(0), "train/good/3.png": {},
		"test/good/0.png": []byte("small"), "test/good/1.png": []byte("smal1"), "test/good/2.png": {}, "test/good/3.png": []byte("smaller"),
		"test/dent/0.png": large, "test/dent/1.png": changed(len(large) - 1), "test/dent/2.png": changed(len(large) / 2), "test/dent/3.png": changed(0),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	set, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	taken := set.Taken()
	if got, want := strings.Join(taken.Copies, " "), "test/dent/0.png test/dent/3.png test/good/0.png"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	const want = "3 test images are copies of ones to train on: test/dent/0.png, test/dent/3.png, test/good/0.png"
	if !strings.Contains(taken.String(), " | "+want+" | ") || taken.CopiesText() != want {
		t.Errorf("got %q, want %q in it", taken, want)
	}
}

// What is no file is left out and counted, and nothing waits for it.
func TestTakenSpecialFiles(t *testing.T) {
	dir := tree(t, "good/0.png", "good/sub/x.txt")
	for _, name := range []string{"good/1.png", "good/pipe"} {
		if err := syscall.Mkfifo(filepath.Join(dir, name), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/dev/zero", filepath.Join(dir, "good/2.png")); err != nil {
		t.Fatal(err)
	}
	writeHeatmap(t, filepath.Join(dir, "good/long_heatmap_of_another.png"))
	set, err := Open(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	const want = "train 1 good | no test images | left out: 1 heat map of infer image, 1 file of no image type, 3 pipes, sockets or devices"
	if got := set.Taken().String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// The JSON names what the line does.
func TestTakenJSON(t *testing.T) {
	set, err := Open(tree(t, "good/0.png", "good/1.png", "good/x/0.png", "NG/0.png", "mask/0.png", "notes.txt"), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(set.Taken())
	const want = `{"train_good":1,"test_good":1,"test_defective":1,"defect_types":[{"type":"NG","count":1}],"masks":1,"mask_folders":["mask"],` +
		`"left_out":[{"reason":"subfolder","count":1,"folders":["good/x/"]},{"reason":"no_image_type","count":1}]}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s, %v\nwant %s", got, err, want)
	}
}

func TestLeftOfOtherReasons(t *testing.T) {
	if got, want := (Left{Reason: "new", Count: 2}).String(), "2 files (new)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func ExampleTaken() {
	fmt.Println(Taken{Train: 213, TestGood: 60, Defective: 40, Types: []TypeCount{{"bent_lead", 10}, {"cut_lead", 30}}, Masks: 40,
		MaskFolders: []string{"ground_truth"}, LeftOut: []Left{{InSubfolder, 7, []string{"camera0/", "camera1/"}}, {NoImageType, 3, nil}}})
	// Output: train 213 good | test 60 good, 40 defective (bent_lead 10, cut_lead 30) | masks 40 in ground_truth | left out: 7 images in camera0/, camera1/ (subfolders: recursive), 3 files of no image type
}
