package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
)

// forPeople is where lines go that are of no one category: nowhere, where lines are objects.
func (tr *training) forPeople() io.Writer {
	if tr.asJSON {
		return io.Discard
	}
	return tr.stdout
}

// tellOthers says what of a folder of data sets is none.
func (tr *training) tellOthers() error {
	if !tr.all {
		return nil
	}
	others, err := dataset.Others(tr.data)
	if err == nil && len(others) > 0 {
		fmt.Fprintf(tr.forPeople(), "all: left out, being no data set: %s\n", strings.Join(others, ", "))
	}
	return err
}

// trainAll trains on one category after the other, those of this process's share, and keeps the page of all of them. What fails in
// one is said, and the others go on.
func (tr *training) trainAll(ctx context.Context) error {
	if err := tr.tellOthers(); err != nil {
		return err
	}
	entries := make([]rdpp.IndexEntry, len(tr.sources))
	from, to := tr.share.Range(len(tr.sources))
	for i := range entries {
		entries[i] = rdpp.IndexEntry{Category: tr.category(i), Reason: "not trained yet"}
		if i < from || i >= to { // which may have failed, as the other process says
			entries[i].Reason = "no results yet, and of another share"
		}
	}
	if tr.share.N > 1 {
		say(tr.forPeople(), "share %d/%d: %d of %d categories", tr.share.I, tr.share.N, to-from, len(tr.sources))
	}
	var failed []string
	for i := from; i < to; i++ {
		summary, err := tr.train(ctx, tr.sources[i])
		if errors.Is(err, rdpp.ErrInterrupted) || errors.Is(err, context.Canceled) {
			return err
		}
		entries[i].Summary, entries[i].Reason = summary, ""
		if err != nil {
			failed = append(failed, entries[i].Category)
			entries[i].Summary, entries[i].Reason = nil, tr.t.Tell(err)
			tr.t.Complain(err)
		}
		if err := tr.writePage(entries, func(i int) bool { return i < from || i >= to }); err != nil {
			return err
		}
	}
	if from < to {
		say(tr.forPeople(), "all: page %s", filepath.Join(tr.out, rdpp.IndexFile))
	}
	if len(failed) > 0 {
		return fmt.Errorf("%d of %d categories failed: %s; see above", len(failed), to-from, strings.Join(failed, ", "))
	}
	return nil
}

// category is the name of a category.
func (tr *training) category(i int) string { return filepath.Base(tr.sources[i].Data) }

// folder is where a category's results lie.
func (tr *training) folder(i int) string { return filepath.Join(tr.out, tr.category(i)) }

// writePage writes the page of all categories. Those that other processes train are looked for: as each process looks once more
// when it has written the page, the last page has all.
func (tr *training) writePage(entries []rdpp.IndexEntry, others func(i int) bool) error {
	look := func() (found bool) {
		for i := range entries {
			e := &entries[i]
			if !others(i) || e.Summary != nil {
				continue
			}
			s, err := rdpp.Finished(tr.folder(i), nil, "")
			switch {
			case err != nil:
				e.Reason = tr.t.Tell(err)
			case s != nil:
				e.Summary, e.Reason, found = s, "", true
			}
		}
		return found
	}
	look()
	for more := true; more; more = look() {
		if err := rdpp.WriteIndex(tr.out, "Anomaly detection, "+filepath.Base(tr.out), entries); err != nil {
			return err
		}
	}
	return nil
}
