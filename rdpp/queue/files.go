package queue

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"rdpp/rdpp/atomicfile"
)

// Models lie in an object store of the server by their SHA-256.
const (
	models    = "RDPP_MODELS"
	modelsFor = 30 * 24 * time.Hour // behind the last job that asks for it
)

// Offer puts a model with a SHA-256 on the server, unless it is there for a while yet.
func (q *Queue) Offer(ctx context.Context, path, sum string) error {
	store, err := q.js.CreateObjectStore(ctx, jetstream.ObjectStoreConfig{Bucket: models, Description: "models, by their SHA-256", Storage: jetstream.FileStorage,
		TTL: modelsFor})
	if errors.Is(err, jetstream.ErrBucketExists) { // with what an operator has set
		store, err = q.js.ObjectStore(ctx, models)
	}
	if err != nil {
		return fmt.Errorf("queue: the NATS server's object store: %w", err)
	}
	if info, err := store.GetInfo(ctx, sum); err == nil && time.Since(info.ModTime) < modelsFor/2 {
		return nil
	}
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("queue: %w", err)
	}
	defer file.Close()
	if _, err := store.Put(ctx, jetstream.ObjectMeta{Name: sum}, file); err != nil {
		return fmt.Errorf("queue: %s to the NATS server: %w", path, err)
	}
	return nil
}

// Model fetches a model by its SHA-256 into a folder, where it is kept, and returns its file.
func (q *Queue) Model(ctx context.Context, sum, folder string) (path string, err error) {
	if len(sum) != 2*sha256.Size || strings.Trim(sum, "0123456789abcdef") != "" {
		return "", fmt.Errorf("queue: %q is no SHA-256", sum)
	}
	path = filepath.Join(folder, sum+".safetensors")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		return "", fmt.Errorf("queue: %w", err)
	}
	store, err := q.js.ObjectStore(ctx, models)
	if err != nil {
		return "", fmt.Errorf("queue: the NATS server's object store: %w", err)
	}
	object, err := store.Get(ctx, sum)
	if err != nil {
		return "", fmt.Errorf("queue: model %s: %w", sum, err)
	}
	defer object.Close()
	hash := sha256.New()
	err = atomicfile.WriteNew(path, func(file *os.File) error {
		if _, err := io.Copy(io.MultiWriter(file, hash), object); err != nil {
			return err
		}
		if got := hex.EncodeToString(hash.Sum(nil)); got != sum {
			return fmt.Errorf("the model that came has the SHA-256 %s, not %s", got, sum)
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return "", fmt.Errorf("queue: %w", err)
	}
	return path, nil
}
