package command

import (
	"os"

	"github.com/spf13/pflag"
)

// NATS is the flags of commands that talk to a NATS server.
type NATS struct{ URL, Credentials string }

// Register makes the flags. usage is the help of --nats.
func (n *NATS) Register(flags *pflag.FlagSet, usage string) {
	flags.StringVar(&n.URL, "nats", "", usage)
	flags.StringVar(&n.Credentials, "nats-creds", "", "`FILE` of a NATS user's credentials")
}

// Check finds what is wrong with them; address tells what is wrong with a URL.
func (n *NATS) Check(address func(url string) error) error {
	if n.URL == "" {
		if n.Credentials != "" {
			return Usagef("--nats-creds is for --nats")
		}
		return nil
	}
	if err := address(n.URL); err != nil {
		return Usagef("--nats: %w", err)
	}
	if n.Credentials != "" {
		if _, err := os.Stat(n.Credentials); err != nil {
			return Usagef("--nats-creds: %w", err)
		}
	}
	return nil
}
