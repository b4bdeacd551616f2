package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"rdpp/rdpp/command"
	"rdpp/rdpp/history"
)

// terminal is both ends of a terminal: what is written to slave is read from master.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

// On a terminal the lines have a header and an end, unless they are for programs or not wanted.
func TestImageOnTerminal(t *testing.T) {
	good, anomalous := testImages()
	for _, c := range []struct {
		flag string
		want string // a regular expression
	}{
		{"--batch=2", `^verdict .*image.*\r\ngood .*\r\nANOMALOUS .*\r\n2 images, 1 anomalous, [0-9.e+]+ images/s\r\n$`},
		{"--json", `^\{.*\}\r\n\{.*\}\r\n$`}, {"--quiet", `^$`},
	} {
		master, slave := terminal(t)
		var stderr bytes.Buffer
		code := run(commandLine("image", c.flag, good[0], anomalous[0]), strings.NewReader(""), slave, &stderr)
		if _, err := slave.WriteString("end"); err != nil {
			t.Fatal(err)
		}
		got := ""
		for buffer := make([]byte, 4096); !strings.HasSuffix(got, "end"); {
			n, err := master.Read(buffer)
			if err != nil {
				t.Fatal(err)
			}
			got += string(buffer[:n])
		}
		got = strings.TrimSuffix(got, "end")
		if code != command.Anomalous || !regexp.MustCompile(c.want).MatchString(got) {
			t.Errorf("%s: got code %d, %q, stderr %q, want %s", c.flag, code, got, &stderr, c.want)
		}
	}
}

func TestSummary(t *testing.T) {
	for _, c := range []struct {
		images, anomalous, failed int
		seconds                   float64
		want                      string
	}{
		{128, 3, 0, 3.125, "128 images, 3 anomalous, 41 images/s"}, {1, 0, 0, 1, "1 image, 0 anomalous"}, {0, 0, 0, 1, "0 images, 0 anomalous"},
		{3, 1, 2, 2, "3 images, 1 anomalous, 2 not judged, 1.5 images/s"}, {2, 0, 0, 0, "2 images, 0 anomalous"},
	} {
		if got := summary(c.images, c.anomalous, c.failed, c.seconds); got != c.want {
			t.Errorf("got %q, want %q", got, c.want)
		}
	}
}

// A history is read from other folders: it has absolute names, however they were given, and infer calibrate finds the images.
func TestHistoryOfRelativeNames(t *testing.T) {
	good, _ := testImages()
	dir := t.TempDir()
	for i, path := range good {
		copyImage(t, path, filepath.Join(dir, "in", fmt.Sprintf("%d.png", i)))
	}
	file, table := filepath.Join(dir, "line.db"), filepath.Join(dir, "line.csv")
	t.Chdir(dir)
	if code, _, stderr := infer(nil, commandLine("image", "--history", file, "--csv", table, "--heatmap", "maps", "in")...); code != command.Done {
		t.Fatalf("got code %d, %s", code, stderr)
	}
	picture, err := os.ReadFile(good[0])
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := infer(picture, commandLine("image", "--history", file, "-")...); code != command.Done {
		t.Fatalf("standard input: got code %d, %s", code, stderr)
	}
	var got, want []string
	h, err := history.Open(file, &history.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Image, r.Heatmap)
	}
	for i := range good {
		want = append(want, filepath.Join(dir, "in", fmt.Sprintf("%d.png", i)), filepath.Join(dir, "maps", fmt.Sprintf("%d_heatmap.png", i)))
	}
	if want = append(want, "-", ""); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if rows, err := os.ReadFile(table); err != nil || !strings.Contains(string(rows), ",in/0.png,") || !strings.HasPrefix(strings.Split(string(rows), "\n")[1], "1,") {
		t.Errorf("the table: got %s, %v, want names as given, and the record's number", rows, err)
	}
	t.Chdir(t.TempDir())
	code, stdout, stderr := infer(nil, commandLine("calibrate", "--history", file, "--out", "new.safetensors", "--false-alarm", "0.3")...)
	if code != command.Done || !strings.Contains(stdout, "images        3,") {
		t.Errorf("calibrate: got code %d, stdout %q, stderr %q, want 3 images", code, stdout, stderr)
	}
}
