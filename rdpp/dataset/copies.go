package dataset

import (
	"crypto/sha256"
	"io"
	"os"
	"slices"

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
	byProbe := map[int64]map[checksum][]string{} // the same of sizes that are looked for, by the middle of the files
	wholes := map[string]checksum{}
	whole := func(path string, size int64) checksum {
		if _, known := wholes[path]; !known {
			wholes[path] = digestOf(path, 0, size)
		}
		return wholes[path]
	}
	for _, item := range items {
		size := sizeOf(item.Path)
		if bySize[size] == nil {
			continue
		}
		probe := func(path string) checksum { return digestOf(path, max(0, size-probeBytes)/2, probeBytes) }
		if byProbe[size] == nil {
			byProbe[size] = map[checksum][]string{}
			for _, path := range bySize[size] {
				p := probe(path)
				byProbe[size][p] = append(byProbe[size][p], path)
			}
		}
		if slices.ContainsFunc(byProbe[size][probe(item.Path)], func(path string) bool {
			return size <= probeBytes || whole(path, size) == whole(item.Path, size)
		}) {
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
