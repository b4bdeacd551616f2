package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Outbox is the queue of a source's records on their way to a destination. It is the records themselves and how far they have been
// sent: what is recorded waits to be sent from that very transaction on, and takes no room of its own. Records that retention
// removes before they are sent are counted as dropped.
type Outbox struct {
	d                   *DB
	id                  int64
	name                string // of the history
	destination, source string
	woken               chan struct{}

	from int64    // up to which record there is nothing to send
	lock *os.File // nil: not locked
	told int64    // records whose dropping Trim has told
}

// outboxes are the tables of outboxes. The history has a name, by which its records are told from those of others.
const outboxes = `
CREATE TABLE IF NOT EXISTS identity (name TEXT NOT NULL);
INSERT INTO identity SELECT lower(hex(randomblob(8))) WHERE NOT EXISTS (SELECT 1 FROM identity);
CREATE TABLE IF NOT EXISTS outboxes (
	id INTEGER PRIMARY KEY, destination TEXT NOT NULL, source TEXT NOT NULL, sent INTEGER NOT NULL, dropped INTEGER NOT NULL, UNIQUE (destination, source));
CREATE INDEX IF NOT EXISTS arrivals_pending ON arrivals (record) WHERE pending;
`

// Outbox opens the queue of a source's records for a destination, whatever names that. The first time it begins with the next
// record.
func (d *DB) Outbox(ctx context.Context, destination, source string) (*Outbox, error) {
	o := &Outbox{d: d, destination: destination, source: source, woken: make(chan struct{}, 1)}
	err := d.transact(ctx, func(tx *sql.Tx) error {
		if _, err := tx.Exec(`INSERT OR IGNORE INTO outboxes (destination, source, sent, dropped)
			SELECT ?, ?, coalesce(max(id), 0), 0 FROM records`, destination, source); err != nil {
			return err
		}
		return tx.QueryRow(`SELECT id, dropped, (SELECT name FROM identity) FROM outboxes WHERE destination = ? AND source = ?`, destination, source).
			Scan(&o.id, &o.told, &o.name)
	})
	if err != nil {
		return nil, o.named(err)
	}
	d.mu.Lock()
	d.woken = append(d.woken, o.woken)
	d.mu.Unlock()
	return o, nil
}

func (o *Outbox) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("history: %s: the outbox: %w", o.d.path, err)
}

// History is a name of the history's, which no other has.
func (o *Outbox) History() string { return o.name }

// ID is a number that no other outbox of the history has.
func (o *Outbox) ID() int64 { return o.id }

// Woken gets a value after something may have come to be sent, by this process. Others' records have to be looked for.
func (o *Outbox) Woken() <-chan struct{} { return o.woken }

// wake wakes those who send.
func (d *DB) wake() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.woken {
		select {
		case c <- struct{}{}:
		default: // it is woken already
		}
	}
}

// TryLock makes this process the one that sends, until Close or the process's death; ok says whether no other does.
func (o *Outbox) TryLock() (ok bool, err error) {
	if o.lock != nil {
		return true, nil
	}
	// Opening and closing the history itself would end SQLite's locks.
	file, err := os.OpenFile(o.d.path+"-outbox", os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return false, o.named(err)
	}
	err = unix.FcntlFlock(file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: o.id, Len: 1})
	if err != nil {
		file.Close()
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
			return false, nil
		}
		return false, o.named(err)
	}
	o.lock = file
	return true, nil
}

// Next are the first records that wait, up to most of them, in their order. Where something is still to follow from a verdict, as
// Journal has it, its record and those after it are not sent yet.
func (o *Outbox) Next(ctx context.Context, most int) (all []*Record, err error) {
	// What is pending is looked at first: the records before it are as they will be.
	var last int64
	err = o.d.db.QueryRowContext(ctx, `SELECT coalesce((SELECT min(a.record) - 1 FROM arrivals a JOIN records r ON r.id = a.record
		WHERE a.pending AND r.source = ?), (SELECT max(id) FROM records), 0)`, o.source).Scan(&last)
	if err != nil || last <= o.from {
		return nil, o.named(err)
	}
	rows, err := o.d.db.QueryContext(ctx, "SELECT "+o.d.columns+` FROM records WHERE source = ? AND id <= ?
		AND id > max(?, (SELECT sent FROM outboxes WHERE id = ?)) ORDER BY id LIMIT ?`, o.source, last, o.from, o.id, most)
	if err != nil {
		return nil, o.named(err)
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, o.named(err)
		}
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return nil, o.named(err)
	}
	if len(all) == 0 {
		o.from = last
	}
	return all, nil
}

// Sent notes that everything up to a record has been sent.
func (o *Outbox) Sent(ctx context.Context, record int64) error {
	_, err := o.d.db.ExecContext(ctx, "UPDATE outboxes SET sent = max(sent, ?) WHERE id = ?", record, o.id)
	return o.named(err)
}

// Empty says whether nothing waits to be sent, which is less work than to count it.
func (o *Outbox) Empty(ctx context.Context) (empty bool, err error) {
	err = o.d.db.QueryRowContext(ctx, "SELECT NOT EXISTS (SELECT 1 FROM records WHERE source = ? AND id > (SELECT sent FROM outboxes WHERE id = ?))",
		o.source, o.id).Scan(&empty)
	return empty, o.named(err)
}

// Waiting is how many records wait to be sent.
func (o *Outbox) Waiting(ctx context.Context) (n int, err error) {
	err = o.d.db.QueryRowContext(ctx, "SELECT count(*) FROM records WHERE source = ? AND id > (SELECT sent FROM outboxes WHERE id = ?)", o.source, o.id).Scan(&n)
	return n, o.named(err)
}

// Trim drops the oldest records that wait, until there are no more than most, and those that are older than age. It returns how
// many have been dropped since the last call, by retention, too.
func (o *Outbox) Trim(ctx context.Context, most int, age time.Duration) (dropped int64, err error) {
	// Looking takes long where many wait, and nobody is to wait to write meanwhile.
	var cut, count int64
	err = o.d.db.QueryRowContext(ctx, `WITH waiting AS (SELECT id, time FROM records
			WHERE source = ?1 AND id > (SELECT sent FROM outboxes WHERE id = ?2)),
		cut AS (SELECT max(coalesce((SELECT id FROM waiting ORDER BY id DESC LIMIT 1 OFFSET ?3), 0),
			coalesce((SELECT max(id) FROM waiting WHERE time < ?4), 0)) AS id)
		SELECT cut.id, (SELECT count(*) FROM waiting WHERE waiting.id <= cut.id) FROM cut`,
		o.source, o.id, most, time.Now().Add(-age).UnixMicro()).Scan(&cut, &count)
	if err == nil && count > 0 {
		_, err = o.d.db.ExecContext(ctx, "UPDATE outboxes SET dropped = dropped + ?, sent = max(sent, ?) WHERE id = ?", count, cut, o.id)
	}
	if err != nil {
		return 0, o.named(err)
	}
	var all int64
	if err := o.d.db.QueryRowContext(ctx, "SELECT dropped FROM outboxes WHERE id = ?", o.id).Scan(&all); err != nil {
		return 0, o.named(err)
	}
	dropped, o.told = all-o.told, all
	return dropped, nil
}

// Skip drops a record that waits first, which cannot be sent.
func (o *Outbox) Skip(ctx context.Context, record int64) error {
	_, err := o.d.db.ExecContext(ctx, "UPDATE outboxes SET dropped = dropped + 1, sent = max(sent, ?) WHERE id = ?", record, o.id)
	if err == nil {
		o.told++ // by who skips it
	}
	return o.named(err)
}

// Close lets another process send.
func (o *Outbox) Close() error {
	if o.lock == nil {
		return nil
	}
	err := o.lock.Close()
	o.lock = nil
	return err
}

// unsent counts a record that is to be removed where it waits to be sent.
func unsent(tx *sql.Tx, id int64, source string) error {
	_, err := tx.Exec("UPDATE outboxes SET dropped = dropped + 1 WHERE source = ? AND sent < ?", source, id)
	return err
}
