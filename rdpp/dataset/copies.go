package dataset

import (
	"crypto/sha256"
	"io"
	"os"

	"rdpp/rdpp/regular"
)

// probeBytes is how much of the middle of files of one size is read before the
// whole of them is: photographs of one size, as cameras store them without
// compression, differ there.
const probeBytes = 4 << 10

// copiesOf returns those of the items whose files have the bytes of one of the
// originals. Sizes are compared first, so that little is read of most files.
// What cannot be read is no copy.
func copiesOf(originals, items []Item) (copies []Item) {
	bySize := map[int64][]string{} // paths
	for _, item := range originals {
		if size := sizeOf(item.Path); size > 0 {
			bySize[size] = append(bySize[size], item.Path)
		}
	}
	// Of the sizes that are looked for: paths by the middle of the files, and where that is alike, of what whole ones are.
	type middle struct {
		size  int64
		bytes checksum
	}
	byMiddle, probed := map[middle][]string{}, map[int64]bool{}
	wholes := map[middle]map[checksum]bool{}
	for _, item := range items {
		size := sizeOf(item.Path)
		if bySize[size] == nil {
			continue
		}
		middleOf := func(path string) middle { return middle{size, digestOf(path, max(0, size-probeBytes)/2, probeBytes)} }
		if !probed[size] {
			probed[size] = true
			for _, path := range bySize[size] {
				m := middleOf(path)
				byMiddle[m] = append(byMiddle[m], path)
			}
		}
		m := middleOf(item.Path)
		alike := byMiddle[m]
		if len(alike) > 0 && size > probeBytes && wholes[m] == nil {
			wholes[m] = map[checksum]bool{}
			for _, path := range alike {
				wholes[m][digestOf(path, 0, size)] = true
			}
		}
		if len(alike) > 0 && (size <= probeBytes || wholes[m][digestOf(item.Path, 0, size)]) {
			copies = append(copies, item)
		}
	}
	return copies
}

// sizeOf is the size of an ordinary file; 0 of anything else.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		return 0
	}
	return info.Size()
}

type checksum [sha256.Size]byte

// digestOf is the SHA-256 of n bytes of a file from an offset on; of a file
// that cannot be read that of its path, which no other one has.
func digestOf(path string, from, n int64) checksum {
	sum := sha256.New()
	in, err := regular.Open(path)
	if err == nil {
		_, err = io.Copy(sum, io.NewSectionReader(in, from, n))
		in.Close()
	}
	if err != nil {
		return sha256.Sum256([]byte(path))
	}
	return checksum(sum.Sum(nil))
}
