// Package bucket reads from stores that speak Amazon S3's protocol: AWS, MinIO, Ceph, Google's by its interoperability; and writes to them.
//
// Where the store is and who asks follows from the environment, as in AWS's own programs: AWS_ENDPOINT_URL (such as
// http://minio:9000; without it: AWS), AWS_REGION, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, the file
// ~/.aws/credentials with AWS_PROFILE, and on AWS the machine's or the service account's role. Whoever has no key asks without.
package bucket

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// Scheme begins the names of what lies in a store: s3://BUCKET/KEY.
const Scheme = "s3://"

// ErrNotFound is wrapped by the errors about objects that are not there.
var ErrNotFound = errors.New("no such object")

// ErrKey is wrapped by the errors about a store that does not know the caller.
var ErrKey = errors.New("the store refuses the key; check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")

// ErrDenied is wrapped by the errors about what the store does not let the caller see. Without the right to list a bucket this is
// also what is not there.
var ErrDenied = errors.New("the store denies it; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and the bucket's policy")

// ErrArchived is wrapped by the errors about objects that the store has put away and does not send.
var ErrArchived = errors.New("the object is archived; restore it in the store first")

// Split parts a name into bucket and key.
func Split(name string) (in, key string, err error) {
	rest, ours := strings.CutPrefix(name, Scheme)
	in, key, _ = strings.Cut(rest, "/")
	if !ours || in == "" {
		return "", "", fmt.Errorf("bucket: %q names no bucket; write %sBUCKET/KEY", name, Scheme)
	}
	return in, key, nil
}

// Options say where a store is. Nil, and empty members, mean the environment.
type Options struct {
	Endpoint string // such as http://minio:9000
	Region   string
	Key      string // with Secret
	Secret   string
}

// Store is a bucket. It is safe for concurrent use.
type Store struct {
	name   string
	client *minio.Core
	stall  time.Duration // how long it may send nothing
	first  time.Duration // the first pause between requests for a page of a listing
}

// Open makes the store of a name s3://BUCKET/..., of which the key does not matter. It asks nothing of it.
func Open(name string, opt *Options) (*Store, error) {
	in, _, err := Split(name)
	if err != nil {
		return nil, err
	}
	if opt == nil {
		opt = &Options{}
	}
	chain := []credentials.Provider{&credentials.EnvAWS{}, &credentials.FileAWSCredentials{}}
	if opt.Key != "" {
		chain = []credentials.Provider{&credentials.Static{Value: credentials.Value{AccessKeyID: opt.Key, SecretAccessKey: opt.Secret,
			SignerType: credentials.SignatureV4}}}
	}
	host, secure := "s3.amazonaws.com", true
	if address := cmp.Or(opt.Endpoint, os.Getenv("AWS_ENDPOINT_URL_S3"), os.Getenv("AWS_ENDPOINT_URL")); address != "" {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || strings.Trim(u.Path, "/") != "" {
			return nil, fmt.Errorf("bucket: the endpoint %q is no address such as https://host:9000; check AWS_ENDPOINT_URL", address)
		}
		host, secure = u.Host, u.Scheme == "https"
	} else {
		chain = append(chain, &credentials.IAM{Client: http.DefaultClient}) // asks addresses that only AWS has
	}
	client, err := minio.NewCore(host, &minio.Options{Creds: credentials.NewChainCredentials(chain), Secure: secure,
		Region: cmp.Or(opt.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")), MaxRetries: 1}) // callers try again
	if err != nil {
		return nil, fmt.Errorf("bucket: %s%s: %w", Scheme, in, err)
	}
	return &Store{in, client, 30 * time.Second, 500 * time.Millisecond}, nil
}

// pauses are those between requests for a page of a listing that fails: 7 attempts in a minute.
func (s *Store) pauses() backoff.BackOff {
	return &backoff.ExponentialBackOff{InitialInterval: s.first, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 30 * time.Second}
}

const listTries = 7

// List yields the keys that begin with below, ascending by their bytes, but for those that end in a slash. Where the store fails,
// or sends nothing for a while, it goes on behind the last key after a pause. An error is the last that it yields.
func (s *Store) List(ctx context.Context, below string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		last, stopped := "", false
		for ended := false; !ended && !stopped; {
			began := last
			_, err := backoff.Retry(ctx, func() (bool, error) {
				err := s.list(ctx, below, last, func(key string) bool {
					last = key
					stopped = !yield(key, nil)
					return !stopped
				})
				if err != nil && last != began && ctx.Err() == nil { // it went on, so the attempts begin anew
					select {
					case <-time.After(s.first):
					case <-ctx.Done():
					}
					return false, nil
				}
				ended = err == nil
				return true, err
			}, backoff.WithBackOff(s.pauses()), backoff.WithMaxTries(listTries), backoff.WithMaxElapsedTime(0))
			if err != nil {
				yield("", err)
				return
			}
		}
	}
}

// list hands the keys behind a key to each, until that is false.
func (s *Store) list(ctx context.Context, below, behind string, each func(key string) bool) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	silence := time.AfterFunc(s.stall, func() { stop(errStalled) })
	defer silence.Stop()
	failed := func(err error) error {
		if context.Cause(ctx) == errStalled {
			err = errStalled
		}
		return s.failed(below, err)
	}
	for object := range s.client.ListObjectsIter(ctx, s.name, minio.ListObjectsOptions{Prefix: below, Recursive: true, StartAfter: behind}) {
		silence.Stop() // whoever takes the key has all the time
		if object.Err != nil {
			return failed(object.Err)
		}
		if !strings.HasSuffix(object.Key, "/") && !each(object.Key) { // one with a slash stands for a folder
			return nil
		}
		silence.Reset(s.stall)
	}
	if err := ctx.Err(); err != nil {
		return failed(err)
	}
	return nil
}

// errStalled ends a request whose answer does not go on.
var errStalled = errors.New("the store sends nothing")

// Get opens an object for reading, and says how many bytes it has. What is not there is ErrNotFound. A store that sends nothing
// for a while is an error.
func (s *Store) Get(ctx context.Context, key string) (content io.ReadCloser, size int64, err error) {
	return s.get(ctx, key, minio.GetObjectOptions{})
}

func (s *Store) get(ctx context.Context, key string, opt minio.GetObjectOptions) (content io.ReadCloser, size int64, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	o := &object{store: s, key: key, ctx: ctx, cancel: cancel}
	var info minio.ObjectInfo
	err = o.soon(func() (err error) {
		o.content, info, _, err = s.client.GetObject(ctx, s.name, key, opt)
		return err
	})
	if err != nil {
		cancel(nil)
		return nil, 0, err
	}
	return o, info.Size, nil
}

// object is one that is read.
type object struct {
	store   *Store
	key     string
	ctx     context.Context
	cancel  context.CancelCauseFunc
	content io.ReadCloser
}

func (o *object) Read(p []byte) (n int, err error) {
	err = o.soon(func() (err error) {
		n, err = o.content.Read(p)
		return err
	})
	return n, err
}

func (o *object) Close() error {
	defer o.cancel(nil)
	return o.content.Close()
}

// soon does what waits for the store, for a while.
func (o *object) soon(f func() error) error {
	defer time.AfterFunc(o.store.stall, func() { o.cancel(errStalled) }).Stop()
	err := f()
	switch {
	case err == nil || err == io.EOF:
		return err
	case context.Cause(o.ctx) == errStalled:
		err = errStalled
	}
	return o.store.failed(o.key, err)
}

// failed is an error of the store, with what it was about.
func (s *Store) failed(key string, err error) error {
	answer := minio.ToErrorResponse(err)
	switch answer.Code {
	case minio.NoSuchKey:
		err = ErrNotFound
	case minio.InvalidAccessKeyID, minio.SignatureDoesNotMatch:
		return backoff.Permanent(fmt.Errorf("bucket: %s%s/%s: %w (%s)", Scheme, s.name, key, ErrKey, answer.Code))
	case minio.AccessDenied:
		return backoff.Permanent(fmt.Errorf("bucket: %s%s/%s: %w (%s)", Scheme, s.name, key, ErrDenied, answer.Code))
	case "InvalidObjectState":
		err = ErrArchived
	case minio.PreconditionFailed:
		err = ErrExists
	}
	return fmt.Errorf("bucket: %s%s/%s: %w", Scheme, s.name, key, err)
}
