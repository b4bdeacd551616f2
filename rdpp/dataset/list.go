package dataset

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"rdpp/rdpp/printable"
	"rdpp/rdpp/textfile"
)

// ErrList says that a list of images cannot be used. The error names its line.
var ErrList = errors.New("not a usable list of images")

// OpenList makes a data set of the images that a file lists: Layout is "list".
// The file holds comma-separated values, with a line of column names first, or
// a JSON object per line:
//
//		path,split,label,mask
//		gut/001.png,train,good,
//		schlecht/007.png,test,scratch,masken/007.png
//
//		{"path": "gut/001.png", "split": "train", "label": "good"}
//
//	  - path, required, is relative to the list's folder, or absolute.
//	  - label, required, is good (or ok, or normal) or the type of a defect. Bare
//	    numbers and truth values are refused, since 1 is good to some and
//	    defective to others.
//	  - split is train or test. Where no line says so, defective images are for
//	    testing, and good ones are held out as OpenOptions.Holdout says.
//	  - mask is the mask of a defective image, or a folder of several; empty where
//	    there is none.
//	  - ignore is a mask of what of the image is not scored; empty where all is.
//
// Commas, semicolons or tabs part the values, which may be in quotes. Capitals
// in the names of columns do not matter. A UTF-8
// byte order mark and Windows' and old Macs' line ends are accepted. Errors wrap ErrList and
// name the line; they are those of Open for what the list names. An image that
// is not there, or a mask, is left out with SkipBad.
func OpenList(file string, opt *OpenOptions) (*Set, error) {
	o, err := opt.complete()
	if err != nil {
		return nil, err
	}
	rows, unknown, err := readList(file)
	if err != nil {
		return nil, err
	}
	dir := filepath.Dir(file)
	s := &Set{Dir: dir, root: dir, Category: folderName(dir), Layout: layoutList, Why: "the images listed in " + printable.Text(filepath.Base(file))}
	hasSplit := slices.ContainsFunc(rows, func(r listRow) bool { return r.split != "" })
	good, goodMasks := 0, 0
	for _, r := range rows {
		at := func(err error) error { return fmt.Errorf("dataset: %s, line %d: %w", file, r.line, err) }
		item := Item{Path: inList(dir, r.path), Type: r.label, Defective: !isGood(r.label)}
		if !item.Defective {
			item.Type = GoodType
			good++
		}
		if r.ignore != "" {
			item.Ignore = inList(dir, r.ignore)
		}
		switch {
		case r.mask == "":
		case item.Defective:
			item.Mask = inList(dir, r.mask)
		default:
			goodMasks++
		}
		switch {
		case r.split == "" && hasSplit:
			return nil, at(fmt.Errorf("%w: the split is empty; write train or test, in all lines or none", ErrList))
		case r.split == "train" && item.Defective:
			return nil, at(fmt.Errorf("%w: the label is %.40q, to train on; write good where it shows a good part, test where not", ErrList, r.label))
		}
		if err := checkListed(item); err != nil {
			if err := s.skip(item.Path, at(err), o); err != nil {
				return nil, err
			}
			continue
		}
		if r.split == "train" {
			s.Train = append(s.Train, item)
		} else {
			s.Test = append(s.Test, item)
		}
	}
	if good == 0 {
		return nil, fmt.Errorf("dataset: %s: %w: no line has the label good, ok or normal; write good for good parts", file, ErrNoGood)
	}
	if err := s.once("name it in one line"); err != nil {
		return nil, err
	}
	if err := s.requireMasks("name its mask in the list or remove the line", o); err != nil {
		return nil, err
	}
	if !hasSplit {
		slices.SortFunc(s.Test, func(a, b Item) int { return strings.Compare(a.Path, b.Path) })
		s.holdOutGood(o)
	}
	if len(s.Train) == 0 && !o.TestOnly {
		return nil, fmt.Errorf("dataset: %s: %w; give lines with good images the split train", file, ErrNoGood)
	}
	s.finish()
	if goodMasks > 0 {
		s.left = append(s.left, Left{Reason: MaskNotNeeded, Count: goodMasks})
	}
	if len(unknown) > 0 {
		s.left = append(s.left, Left{UnknownColumn, len(unknown), unknown})
	}
	return s, nil
}

// inList is the path of a file as a list names it: with backslashes for
// slashes, where it is so that it is there.
func inList(dir, name string) string {
	under := func(name string) string {
		if filepath.IsAbs(name) {
			return filepath.Clean(name)
		}
		return filepath.Join(dir, filepath.FromSlash(name))
	}
	path := under(name)
	if turned := under(strings.ReplaceAll(name, `\`, "/")); turned != path {
		if _, err := os.Stat(path); err != nil {
			return turned
		}
	}
	return path
}

// checkListed says why an item cannot be used.
func checkListed(item Item) error {
	for _, path := range []string{item.Path, item.Mask, item.Ignore} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		switch {
		case err != nil:
			return fmt.Errorf("%w: %w; restore the file or remove the line", ErrMissing, err)
		case !info.Mode().IsRegular() && (path != item.Mask || !info.IsDir()):
			return fmt.Errorf("%w: %s is no file; restore it or remove the line", ErrMissing, printable.Text(path))
		}
	}
	if item.Mask == item.Path {
		return fmt.Errorf("%w: the mask is the image itself; name a mask, or none", ErrList)
	}
	return nil
}

// listRow is one line of a list.
type listRow struct {
	line                             int
	path, split, label, mask, ignore string
}

// readList returns the rows of a list, and the names of columns that it does
// not know.
func readList(file string) (rows []listRow, unknown []string, err error) {
	if isFolder(file) {
		return nil, nil, fmt.Errorf("dataset: %s: %w: it is a folder; give the file", file, ErrList)
	}
	data, err := textfile.Read(file)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("dataset: %w; check the path", err)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("dataset: %w: %w", ErrList, err)
	}
	if rows, unknown, err = parseList(data); err != nil {
		return nil, nil, fmt.Errorf("dataset: %s: %w: %w", file, ErrList, err)
	}
	return rows, unknown, nil
}

// listColumns are the columns of a list.
var listColumns = []string{"path", "split", "label", "mask", "ignore"}

// parseList parses a list, whose errors name the line.
func parseList(data []byte) (rows []listRow, unknown []string, err error) {
	if bytes.IndexByte(data, '\n') < 0 { // lines of Macs, which Excel still writes
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	}
	switch start := bytes.TrimSpace(data); {
	case len(start) == 0:
		return nil, nil, errors.New("it is empty; the first line names the columns path, split, label and mask")
	case bytes.IndexByte(data, 0) >= 0:
		return nil, nil, errors.New("it is no text in UTF-8; save it as CSV in UTF-8")
	case start[0] == '[':
		return nil, nil, errors.New("line 1: a JSON array; write one object per line")
	case start[0] == '{':
		rows, unknown, err = parseObjects(data)
	default:
		rows, unknown, err = parseTable(data)
	}
	if err != nil {
		return nil, nil, err
	}
	if len(rows) == 0 {
		return nil, nil, errors.New("it lists no image")
	}
	lines := make(map[string]int)
	for i := range rows {
		if err := rows[i].check(); err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", rows[i].line, err)
		}
		if first, ok := lines[rows[i].path]; ok {
			return nil, nil, fmt.Errorf("line %d: the image %.200q is that of line %d", rows[i].line, rows[i].path, first)
		}
		lines[rows[i].path] = rows[i].line
	}
	return rows, unknown, nil
}

// check says what is wrong with a row, and writes its split in small letters.
func (r *listRow) check() error {
	r.split = strings.ToLower(r.split)
	switch r.split {
	case "", "train", "test":
	default:
		return fmt.Errorf("the split is %.40q, not train or test", r.split)
	}
	switch label := strings.ToLower(r.label); {
	case r.path == "":
		return errors.New("the path is empty")
	case label == "":
		return errors.New("the label is empty; write good or the type of the defect")
	case label == "true", label == "false", strings.Trim(label, "+-.0123456789") == "":
		return fmt.Errorf("the label is %.40q, which may mean either; write good or the type of the defect", r.label)
	}
	for _, text := range []string{r.path, r.label, r.mask, r.ignore} {
		if strings.ContainsFunc(text, unicode.IsControl) {
			return fmt.Errorf("%.200q has control characters", text)
		}
	}
	return nil
}

// parseTable parses values parted by commas, semicolons or tabs, whichever the
// first line has most of.
func parseTable(data []byte) (rows []listRow, unknown []string, err error) {
	table := csv.NewReader(bytes.NewReader(data))
	first, _, _ := bytes.Cut(data, []byte("\n"))
	for _, comma := range ";\t" {
		if strings.Count(string(first), string(comma)) > strings.Count(string(first), string(table.Comma)) {
			table.Comma = comma
		}
	}
	header, err := table.Read()
	if err != nil {
		return nil, nil, err
	}
	at := make(map[string]int)
	for i, name := range header {
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := at[name]; twice && slices.Contains(listColumns, name) {
			return nil, nil, fmt.Errorf("line 1 names the column %s twice", name)
		}
		at[name] = i
		if !slices.Contains(listColumns, name) {
			unknown = append(unknown, printable.Text(name))
		}
	}
	for _, name := range []string{"path", "label"} {
		if _, ok := at[name]; !ok {
			return nil, nil, fmt.Errorf("line 1 names no column %s; name the columns path, split, label and mask", name)
		}
	}
	for {
		fields, err := table.Read()
		if err == io.EOF {
			return rows, unknown, nil
		}
		if err != nil {
			return nil, nil, err
		}
		line, _ := table.FieldPos(0)
		value := func(name string) string {
			if i, ok := at[name]; ok {
				return strings.TrimSpace(fields[i])
			}
			return ""
		}
		rows = append(rows, listRow{line, value("path"), value("split"), value("label"), value("mask"), value("ignore")})
	}
}

// parseObjects parses one JSON object per line; empty lines are skipped.
func parseObjects(data []byte) (rows []listRow, unknown []string, err error) {
	others := make(map[string]bool)
	line := 0
	for text := range bytes.Lines(data) {
		line++
		if text = bytes.TrimSpace(text); len(text) == 0 {
			continue
		}
		if !utf8.Valid(text) {
			return nil, nil, fmt.Errorf("line %d: it is no UTF-8, which JSON is; list such names as CSV", line)
		}
		r := listRow{line: line}
		into := map[string]*string{"path": &r.path, "split": &r.split, "label": &r.label, "mask": &r.mask, "ignore": &r.ignore}
		err := eachMember(text, func(name string, value any) error {
			plain := strings.ToLower(name)
			field, known := into[plain]
			text, isText := value.(string)
			switch {
			case !known && slices.Contains(listColumns, plain):
				return fmt.Errorf("%s is there twice", name)
			case !known:
				others[printable.Text(name)] = true
			case isText:
				*field = text
			case value != nil:
				return fmt.Errorf("%s is %v, no text", name, value)
			}
			delete(into, plain)
			return nil
		})
		if err != nil {
			return nil, nil, fmt.Errorf("line %d: %w", line, err)
		}
		rows = append(rows, r)
	}
	return rows, slices.Sorted(maps.Keys(others)), nil
}

// eachMember calls f with the members of a JSON object, which is all of text, in
// their order.
func eachMember(text []byte, f func(name string, value any) error) error {
	if !json.Valid(text) {
		return json.Unmarshal(text, new(any)) // says where
	}
	d := json.NewDecoder(bytes.NewReader(text))
	if start, err := d.Token(); err != nil || start != json.Delim('{') {
		return errors.Join(err, errors.New("no JSON object"))
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		var value any
		if err := d.Decode(&value); err != nil {
			return err
		}
		if err := f(name.(string), value); err != nil {
			return err
		}
	}
	return nil
}
