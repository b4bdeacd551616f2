package torch

// #include <stdlib.h>
// #include "rdpp.h"
import "C"

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"unsafe"
)

// NamedTensor is an attribute of a TorchScript module.
type NamedTensor struct {
	Name   string
	Tensor *Tensor
}

// SaveScript compiles source, the text of a module's methods in TorchScript, with the tensors as the module's attributes,
// and writes the module to w in libtorch's format. extra holds further entries of the file by their names; Python reads
// them with torch.jit.load(..., _extra_files=...).
func SaveScript(w io.Writer, source string, tensors []NamedTensor, extra map[string]string) (err error) {
	reader, writer, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("torch: script: %w", err)
	}
	copied := make(chan error, 1)
	go func() {
		_, err := io.Copy(w, reader)
		// Whoever still writes gets an error instead of waiting for ever.
		copied <- errors.Join(err, reader.Close())
	}()
	err = saveScript(writer, source, tensors, extra)
	closed := writer.Close()
	if failed := <-copied; failed != nil {
		return fmt.Errorf("torch: script: %w", failed) // and not that the pipe broke
	}
	return errors.Join(err, closed)
}

func saveScript(to *os.File, source string, tensors []NamedTensor, extra map[string]string) error {
	var texts cTexts
	defer texts.free()
	texts.add(source)
	var handles []C.rdpp_tensor
	for _, t := range tensors {
		texts.add(t.Name)
		handles = append(handles, t.Tensor.raw())
	}
	for _, key := range slices.Sorted(maps.Keys(extra)) {
		texts.add(key)
		texts.add(extra[key])
	}
	names, entries := texts[1:], texts[1+len(tensors):]
	err := check("script", C.rdpp_script_save(texts[0], unsafe.SliceData(names), unsafe.SliceData(handles), C.int64_t(len(tensors)),
		unsafe.SliceData(entries), C.int64_t(len(extra)), C.int32_t(to.Fd())))
	runtime.KeepAlive(to)
	return err
}

// cTexts are strings in C's memory.
type cTexts []*C.char

func (t *cTexts) add(s string) { *t = append(*t, C.CString(s)) }

func (t *cTexts) free() {
	for _, s := range *t {
		C.free(unsafe.Pointer(s))
	}
}
