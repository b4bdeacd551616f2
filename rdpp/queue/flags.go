package queue

import (
	"os"

	"github.com/spf13/pflag"

	"rdpp/rdpp/command"
)

// Flags are the flags of commands that talk to a NATS server.
type Flags struct{ URL, Credentials string }

// Register makes the flags. usage is the help of --nats.
func (q *Flags) Register(flags *pflag.FlagSet, usage string) {
	flags.StringVar(&q.URL, "nats", "", usage)
	flags.StringVar(&q.Credentials, "nats-creds", "", "`FILE` of a NATS user's credentials")
}

// Check finds what is wrong with them.
func (q *Flags) Check() error {
	if q.URL == "" {
		if q.Credentials != "" {
			return command.Usagef("--nats-creds is for --nats")
		}
		return nil
	}
	if err := CheckURL(q.URL); err != nil {
		return command.Usagef("--nats: %w", err)
	}
	if q.Credentials != "" {
		if _, err := os.Stat(q.Credentials); err != nil {
			return command.Usagef("--nats-creds: %w", err)
		}
	}
	return nil
}
