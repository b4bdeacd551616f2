package outbox

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"rdpp/rdpp/setting"
	"rdpp/rdpp/textfile"
)

// WebhookOptions say how a webhook is called. Zero means the default.
type WebhookOptions struct {
	Secret  []byte        // that messages are signed with; default: they are not
	Timeout time.Duration // for an answer, default 10 s
	Client  *http.Client  // default: one of its own, which follows no redirection
}

// Webhook posts messages to an address over HTTP, one at a time, and goes on to the next after a status of 2xx. They are signed as
// the specification Standard Webhooks has it: in the headers Webhook-Id, Webhook-Timestamp and Webhook-Signature, which is
// "v1," and the HMAC-SHA256 of ID.TIMESTAMP.BODY in base64.
type Webhook struct {
	address string
	name    string
	opt     WebhookOptions
}

// NewWebhook is a webhook at a URL of http or https. The error is a *setting.Error of webhook.
func NewWebhook(address string, opt *WebhookOptions) (*Webhook, error) {
	if opt == nil {
		opt = &WebhookOptions{}
	}
	u, err := url.Parse(address)
	switch {
	case err != nil: // and would show a password
		return nil, setting.Wrong("webhook", "no URL", "use http:// or https://")
	case u.User != nil:
		return nil, setting.Wrong("webhook", u.Redacted(), "leave out user and password, which other users of this machine could read there; sign instead, by {webhook_secret}")
	case u.Scheme != "http" && u.Scheme != "https", u.Hostname() == "", u.Fragment != "":
		return nil, setting.Wrong("webhook", address, "use http:// or https://")
	}
	w := &Webhook{address: u.String(), name: "webhook " + u.Host, opt: *opt}
	w.opt.Timeout = cmp.Or(w.opt.Timeout, 10*time.Second)
	if w.opt.Client == nil {
		transport := http.DefaultTransport.(*http.Transport).Clone()
		w.opt.Client = &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	}
	return w, nil
}

// leastSecret is how many bytes a secret has.
const leastSecret = 16

// ReadSecret reads a secret from a file, as [textfile.Read] does: a line, whose bytes it is, or as Standard Webhooks writes it, whsec_
// and base64.
func ReadSecret(path string) ([]byte, error) {
	data, err := textfile.Read(path)
	if err != nil {
		return nil, fmt.Errorf("outbox: the secret: %w", err)
	}
	secret, err := parseSecret(data)
	if err != nil {
		return nil, fmt.Errorf("outbox: %s: %w", path, err)
	}
	return secret, nil
}

func parseSecret(data []byte) (secret []byte, err error) {
	secret = bytes.TrimSpace(data)
	if bytes.ContainsAny(secret, "\r\n") {
		return nil, errors.New("has several lines; write the secret alone into it")
	}
	if coded, found := bytes.CutPrefix(secret, []byte("whsec_")); found {
		if secret, err = base64.StdEncoding.DecodeString(string(coded)); err != nil {
			return nil, errors.New("what follows whsec_ is not base64")
		}
	}
	if len(secret) < leastSecret {
		return nil, fmt.Errorf("a secret of %d bytes is guessed easily; use %d or more, such as `openssl rand -hex 32` prints", len(secret), leastSecret)
	}
	return secret, nil
}

// Sign is the signature of a message that is sent at a time: the value of Webhook-Signature.
func Sign(secret []byte, id string, at time.Time, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	fmt.Fprintf(mac, "%s.%d.%s", id, at.Unix(), body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// String leaves out the path, which is a secret of some webhooks.
func (w *Webhook) String() string { return w.name }

// Key tells this destination from others, without telling what may be secret of it.
func (w *Webhook) Key() string { return fmt.Sprintf("%s %x", w.name, sha256.Sum256([]byte(w.address))) }

// Begin does nothing: a webhook has no use for the sender's name.
func (w *Webhook) Begin(string) {}

// Ready does nothing: each message is a request.
func (w *Webhook) Ready(context.Context) error { return nil }

// Close lets go of connections.
func (w *Webhook) Close(context.Context) error {
	w.opt.Client.CloseIdleConnections()
	return nil
}

// Send posts messages one after the other.
func (w *Webhook) Send(ctx context.Context, messages []Packed) (taken int, err error) {
	for i, m := range messages {
		if err := w.post(ctx, m); err != nil {
			return i, err
		}
	}
	return len(messages), nil
}

func (w *Webhook) post(ctx context.Context, m Packed) error {
	ctx, cancel := context.WithTimeout(ctx, w.opt.Timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, w.address, bytes.NewReader(m.JSON))
	if err != nil {
		return bare(err)
	}
	now := time.Now()
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "rdpp")
	r.Header.Set("Webhook-Id", m.ID)
	r.Header.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10))
	if w.opt.Secret != nil {
		r.Header.Set("Webhook-Signature", Sign(w.opt.Secret, m.ID, now, m.JSON))
	}
	answer, err := w.opt.Client.Do(r)
	if err != nil {
		return bare(err)
	}
	defer answer.Body.Close()
	said, _ := io.ReadAll(io.LimitReader(answer.Body, 64<<10)) // so that the connection can be used again
	if answer.StatusCode/100 == 2 {
		return nil
	}
	text := answer.Status
	if line, _, _ := strings.Cut(strings.TrimSpace(string(said)), "\n"); line != "" && strings.HasPrefix(answer.Header.Get("Content-Type"), "text/plain") {
		text = fmt.Sprintf("%s: %.200q", text, line)
	}
	switch answer.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnsupportedMediaType, http.StatusUnprocessableEntity:
		return fmt.Errorf("%w: %s", ErrRefused, text)
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return fmt.Errorf("it answers %s, and redirections are not followed; name the address that it leads to", text)
	}
	err = fmt.Errorf("it answers %s", text)
	if after, ok := retryAfter(answer.Header.Get("Retry-After"), now); ok {
		return &Later{after, err}
	}
	return err
}

// bare is an error of a request without its address.
func bare(err error) error {
	if e := (*url.Error)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

// retryAfter reads the header of that name: seconds, or a time.
func retryAfter(text string, now time.Time) (after time.Duration, ok bool) {
	if seconds, err := strconv.ParseUint(text, 10, 32); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	if at, err := http.ParseTime(text); err == nil {
		return max(at.Sub(now), 0), true
	}
	return 0, false
}
