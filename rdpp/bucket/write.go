package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/minio/minio-go/v7"
)

// ErrExists is wrapped by the errors about objects that are there, of which there was to be none.
var ErrExists = errors.New("there is such an object")

// putFor bounds an attempt to put an object.
const putFor = time.Hour

// again does what waits for the store, again after a pause where the store fails.
func (s *Store) again(ctx context.Context, f func(ctx context.Context) error) error {
	_, err := backoff.Retry(ctx, func() (bool, error) {
		err := f(ctx)
		if errors.Is(err, ErrNotFound) || errors.Is(err, ErrExists) {
			err = backoff.Permanent(err)
		}
		return err == nil, err
	}, backoff.WithBackOff(s.pauses()), backoff.WithMaxTries(listTries), backoff.WithMaxElapsedTime(0))
	return err
}

// Put puts an object of so many bytes into the store, whole or not at all. New ones are to be the first of their key: where there is
// one the error is ErrExists, if the store knows conditions; else it is replaced.
func (s *Store) Put(ctx context.Context, key string, content io.ReadSeeker, size int64, isNew bool) error {
	opt := minio.PutObjectOptions{}
	if isNew {
		opt.SetMatchETagExcept("*")
	}
	return s.again(ctx, func(ctx context.Context) error {
		if _, err := content.Seek(0, io.SeekStart); err != nil {
			return backoff.Permanent(fmt.Errorf("bucket: %w", err))
		}
		ctx, stop := context.WithTimeout(ctx, putFor)
		defer stop()
		if _, err := s.client.Client.PutObject(ctx, s.name, key, content, size, opt); err != nil {
			return s.failed(key, err)
		}
		return nil
	})
}

// Part is what an object has from a byte up to another one. What is not there is ErrNotFound.
func (s *Store) Part(ctx context.Context, key string, from, to int64) (content []byte, err error) {
	content = make([]byte, to-from)
	err = s.again(ctx, func(ctx context.Context) error {
		opt := minio.GetObjectOptions{}
		if err := opt.SetRange(from, to-1); err != nil {
			return backoff.Permanent(fmt.Errorf("bucket: %w", err))
		}
		o, _, err := s.get(ctx, key, opt)
		if err != nil {
			return err
		}
		defer o.Close()
		if _, err := io.ReadFull(o, content); err != nil {
			return fmt.Errorf("bucket: %s%s/%s: %w", Scheme, s.name, key, err)
		}
		return nil
	})
	return content, err
}

// Read is all that an object has. What is not there is ErrNotFound.
func (s *Store) Read(ctx context.Context, key string) (content []byte, err error) {
	err = s.again(ctx, func(ctx context.Context) error {
		o, _, err := s.Get(ctx, key)
		if err != nil {
			return err
		}
		defer o.Close()
		content, err = io.ReadAll(o)
		return err
	})
	return content, err
}

// Size is how many bytes an object has. What is not there is ErrNotFound.
func (s *Store) Size(ctx context.Context, key string) (size int64, err error) {
	err = s.again(ctx, func(ctx context.Context) error {
		ctx, stop := context.WithTimeout(ctx, s.stall)
		defer stop()
		info, err := s.client.StatObject(ctx, s.name, key, minio.StatObjectOptions{})
		if err != nil {
			return s.failed(key, err)
		}
		size = info.Size
		return nil
	})
	return size, err
}

// Remove removes an object, where it is there.
func (s *Store) Remove(ctx context.Context, key string) error {
	ctx, stop := context.WithTimeout(ctx, s.stall)
	defer stop()
	if err := s.client.RemoveObject(ctx, s.name, key, minio.RemoveObjectOptions{}); err != nil {
		return s.failed(key, err)
	}
	return nil
}
