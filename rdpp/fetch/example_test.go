package fetch_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"

	"rdpp/rdpp/fetch"
)

func ExampleFile() {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("abc")) }))
	defer server.Close()
	folder, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(folder)
	path := filepath.Join(folder, "abc-ba7816bf")
	if err := fetch.File(context.Background(), server.URL, path, fetch.Options{SHA256: "ba7816bf"}); err != nil {
		log.Fatal(err)
	}
	content, err := os.ReadFile(path)
	fmt.Printf("%s %v\n", content, err)
	// Output:
	// abc <nil>
}
