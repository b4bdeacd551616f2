package atomicfile_test

import (
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"rdpp/rdpp/atomicfile"
)

func ExampleWrite() {
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "history.csv")
	err = atomicfile.Write(path, func(w io.Writer) error {
		_, err := fmt.Fprintln(w, "epoch,loss")
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(path)
	fmt.Printf("%s%v\n", content, err)
	// Output:
	// epoch,loss
	// <nil>
}
