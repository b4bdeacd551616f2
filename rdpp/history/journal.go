package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"
)

// Arrival is a file of a folder that has been judged and may still be there.
type Arrival struct {
	Path    string    // within the folder
	Size    int64     // bytes
	Time    time.Time // of its last change, to the nanosecond
	SHA256  string    // of its content
	Record  int64     // what was said of it
	Pending bool      // what follows from the verdict is not done yet
}

// Journal is what has arrived in a folder. One process at a time may write it.
//
// It makes every image be judged once, whenever the process dies: Judged writes verdict and arrival in one transaction, then comes
// what follows from the verdict, then Done. A process that dies before Judged has said nothing of the image, and the next one
// judges it; one that dies after it leaves the arrival pending, and the next one does what follows, which must bear to be done
// twice, and judges nothing.
type Journal struct {
	d      *DB
	folder string
}

// Journal is that of a folder, by its full path.
func (d *DB) Journal(folder string) *Journal { return &Journal{d, folder} }

func (j *Journal) named(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("history: %s: the journal of %s: %w", j.d.path, j.folder, err)
}

// Arrivals are the files that have been judged, those that wait for what follows first, in the order of their records.
func (j *Journal) Arrivals(ctx context.Context) (all []Arrival, err error) {
	rows, err := j.d.db.QueryContext(ctx, `SELECT path, size, time, sha256, record, pending FROM arrivals WHERE folder = ? ORDER BY pending DESC, record`,
		j.folder)
	if err != nil {
		return nil, j.named(err)
	}
	defer rows.Close()
	for rows.Next() {
		a, err := scanArrival(rows.Scan)
		if err != nil {
			return nil, j.named(err)
		}
		all = append(all, a)
	}
	return all, j.named(rows.Err())
}

func scanArrival(scan func(...any) error) (a Arrival, err error) {
	var at int64
	err = scan(&a.Path, &a.Size, &at, &a.SHA256, &a.Record, &a.Pending)
	a.Time = time.Unix(0, at)
	return a, err
}

// Find is the arrival of a path; nil where there is none.
func (j *Journal) Find(ctx context.Context, path string) (*Arrival, error) {
	row := j.d.db.QueryRowContext(ctx, `SELECT path, size, time, sha256, record, pending FROM arrivals WHERE folder = ? AND path = ?`, j.folder, path)
	a, err := scanArrival(row.Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	return &a, j.named(err)
}

// Judged writes a verdict and that it is one on an arrival, whose Record it sets and which is pending from now on.
func (j *Journal) Judged(ctx context.Context, a *Arrival, r *Record) error {
	err := j.d.transact(ctx, func(tx *sql.Tx) error {
		if err := insert(tx, r); err != nil {
			return err
		}
		a.Record, a.Pending = r.ID, true
		return j.put(tx, a)
	})
	if err != nil {
		return j.named(err)
	}
	j.d.tell(r)
	_ = j.d.wrote(1) // what is too much now is so the next time
	return nil
}

func (j *Journal) put(tx *sql.Tx, a *Arrival) error {
	_, err := tx.Exec(`INSERT OR REPLACE INTO arrivals VALUES (?, ?, ?, ?, ?, ?, ?)`, j.folder, a.Path, a.Size, a.Time.UnixNano(), a.SHA256, a.Record, a.Pending)
	return err
}

// Touched notes another size or time of an arrival whose content is the same.
func (j *Journal) Touched(ctx context.Context, a *Arrival) error {
	return j.named(j.d.transact(ctx, func(tx *sql.Tx) error { return j.put(tx, a) }))
}

// Move changes where the image of a record goes.
func (j *Journal) Move(ctx context.Context, record int64, to string) error {
	return j.named(j.d.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("UPDATE records SET moved = ? WHERE id = ?", to, record)
		return err
	}))
}

// Done notes that what follows from the verdict on an arrival is done. With gone the file is no longer in the folder, and another
// one of its name is another image.
func (j *Journal) Done(ctx context.Context, a Arrival, gone bool) error {
	err := j.d.transact(ctx, func(tx *sql.Tx) error {
		statement := "UPDATE arrivals SET pending = 0 WHERE folder = ? AND path = ? AND record = ?"
		if gone {
			statement = "DELETE FROM arrivals WHERE folder = ? AND path = ? AND record = ?"
		}
		_, err := tx.Exec(statement, j.folder, a.Path, a.Record)
		return err
	})
	if err == nil {
		j.d.wake()
	}
	return j.named(err)
}

// Forget removes files that have left the folder, unless something is to follow from their verdicts.
func (j *Journal) Forget(ctx context.Context, paths ...string) error {
	return j.named(j.d.transact(ctx, func(tx *sql.Tx) error {
		for _, path := range paths {
			if _, err := tx.Exec("DELETE FROM arrivals WHERE folder = ? AND path = ? AND NOT pending", j.folder, path); err != nil {
				return err
			}
		}
		return nil
	}))
}
