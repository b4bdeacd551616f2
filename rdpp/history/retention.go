package history

import (
	"cmp"
	"context"
	"database/sql"
	"fmt"
	"slices"
	"time"
)

// Retention is looked at once in so many records, and removes no more than so many in one transaction, for which others wait.
const (
	lookEvery   = 250
	removedOnce = 1000
	sweptOnce   = 100
)

// Retention is what bounds the history.
func (d *DB) Retention(ctx context.Context) (r Retention, err error) {
	if err := d.db.QueryRowContext(ctx, "SELECT age, bytes FROM retention").Scan(&r.Age, &r.Bytes); err != nil {
		return r, fmt.Errorf("history: %s: %w", d.path, err)
	}
	r.Bytes = cmp.Or(r.Bytes, defaultBytes)
	return r, nil
}

// SetRetention bounds the history, and removes what is too much.
func (d *DB) SetRetention(ctx context.Context, r Retention) error {
	if r.Age < 0 || r.Bytes != 0 && r.Bytes < LeastBytes {
		return fmt.Errorf("history: %s: to keep records for %v and %d bytes cannot be; use at least %d bytes", d.path, r.Age, r.Bytes, LeastBytes)
	}
	if _, err := d.db.ExecContext(ctx, "UPDATE retention SET age = ?, bytes = ?", r.Age, r.Bytes); err != nil {
		return fmt.Errorf("history: %s: %w", d.path, err)
	}
	return d.Prune(ctx)
}

// wrote prunes now and then.
func (d *DB) wrote(records int) error {
	d.mu.Lock()
	d.since += records
	due := d.since >= lookEvery
	if due {
		d.since = 0
	}
	d.mu.Unlock()
	if !due {
		return nil
	}
	return d.Prune(context.Background())
}

// Prune removes the records that retention does not keep. Writing does it by itself.
func (d *DB) Prune(ctx context.Context) error {
	r, err := d.Retention(ctx)
	if err != nil {
		return err
	}
	for more := r.Age > 0; more; {
		before := time.Now().Add(-r.Age).UnixMicro()
		if more, err = d.remove(ctx, removedOnce, byAge, before); err != nil {
			return err
		}
	}
	for more := true; more; {
		used, err := d.used(ctx)
		if err != nil {
			return err
		}
		if used <= r.Bytes {
			return nil
		}
		n, err := d.Count(ctx)
		if err != nil {
			return err
		}
		// As many as are too much if all are of a size; what is left to remove is so in the next round.
		most := min(removedOnce, 1+int(float64(n)*float64(used-r.Bytes)/float64(used)))
		if more, err = d.remove(ctx, most, bySize); err == nil && !more {
			more, err = d.remove(ctx, most, bySizeAtLast)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Which records go.
const (
	byAge        = "WHERE time < ? AND correction = '' ORDER BY time"
	bySize       = "WHERE correction = '' ORDER BY id"
	bySizeAtLast = "WHERE correction <> '' ORDER BY id"
)

// removable asks for up to most records that nothing waits for. It sorts none: others wait to write meanwhile.
func removable(most int, which string) string {
	return `WITH gone AS (SELECT id, source, heatmap, mask, correction, time FROM records WHERE id NOT IN (SELECT record FROM arrivals WHERE pending))
		SELECT id, source, heatmap, mask FROM gone ` + which + fmt.Sprintf(" LIMIT %d", most)
}

// remove removes up to most records that nothing waits for, and says whether there were any.
func (d *DB) remove(ctx context.Context, most int, which string, args ...any) (more bool, err error) {
	var named, left [][2]string // sources and heat maps: of the records, and those that no other record names
	err = d.transact(ctx, func(tx *sql.Tx) error {
		rows, err := tx.Query(removable(most, which), args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		var ids []int64
		var sources, masks []string
		for rows.Next() {
			var id int64
			var source, heatmap, mask string
			if err := rows.Scan(&id, &source, &heatmap, &mask); err != nil {
				return err
			}
			if mask != "" && !slices.Contains(masks, mask) {
				masks = append(masks, mask)
			}
			ids, sources = append(ids, id), append(sources, source)
			if heatmap != "" {
				named = append(named, [2]string{source, heatmap})
			}
		}
		if err := rows.Err(); err != nil {
			return err
		}
		for i, id := range ids {
			if err := unsent(tx, id, sources[i]); err != nil {
				return err
			}
			if _, err := tx.Exec("DELETE FROM records WHERE id = ?", id); err != nil {
				return err
			}
		}
		more = len(ids) > 0
		for _, mask := range masks {
			_, err := tx.Exec("DELETE FROM masks WHERE sha256 = ? AND NOT EXISTS (SELECT 1 FROM records WHERE mask = ? AND mask <> '')", mask, mask)
			if err != nil {
				return err
			}
		}
		for _, of := range named {
			var used bool
			if err := tx.QueryRow("SELECT "+inUse, of[1]).Scan(&used); err != nil {
				return err
			}
			if used {
				continue
			}
			left = append(left, of)
			if _, err := tx.Exec(`INSERT OR IGNORE INTO leavings SELECT source, ? FROM leavings WHERE source = ? AND heatmap = ''`, of[1], of[0]); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return false, fmt.Errorf("history: %s: %w", d.path, err)
	}
	for _, of := range left {
		d.removed(of[0], of[1])
	}
	// Gives the room back; each row that it answers is a page.
	rows, err := d.db.QueryContext(ctx, "PRAGMA incremental_vacuum")
	if err == nil {
		for rows.Next() {
		}
		err = rows.Close()
	}
	if err != nil {
		return false, fmt.Errorf("history: %s: %w", d.path, err)
	}
	return more, nil
}

// inUse asks whether a record names a heat map.
const inUse = "EXISTS (SELECT 1 FROM records WHERE heatmap = ? AND heatmap <> '')"

// Sweep calls remove with the heat maps that records of a source have left: whichever process removed those records, and whatever
// became of it. From the first call on the history remembers them for the source, so one that draws heat maps of its own calls
// it before it records any, and now and then. remove must bear to be called again for a file that it has removed; one that
// is not gone comes again the next time. It must not use the history, and nobody may draw heat maps of the source meanwhile.
func (d *DB) Sweep(ctx context.Context, source string, remove func(heatmap string) (gone bool)) error {
	named := func(err error) error { return fmt.Errorf("history: %s: the heat maps of %s: %w", d.path, source, err) }
	if _, err := d.db.ExecContext(ctx, "INSERT OR IGNORE INTO leavings VALUES (?, '')", source); err != nil {
		return named(err)
	}
	for after := ""; ; {
		left, err := d.leavings(ctx, source, after)
		if err != nil {
			return named(err)
		}
		if len(left) == 0 {
			return nil
		}
		after = left[len(left)-1]
		err = d.transact(ctx, func(tx *sql.Tx) error {
			for _, heatmap := range left {
				var used bool // by a record that is newer
				if err := tx.QueryRow("SELECT "+inUse, heatmap).Scan(&used); err != nil {
					return err
				}
				if !used && !remove(heatmap) {
					continue
				}
				if _, err := tx.Exec("DELETE FROM leavings WHERE source = ? AND heatmap = ?", source, heatmap); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return named(err)
		}
	}
}

// leavings are some of the heat maps that a source has left, from behind one on.
func (d *DB) leavings(ctx context.Context, source, after string) (left []string, err error) {
	rows, err := d.db.QueryContext(ctx, "SELECT heatmap FROM leavings WHERE source = ? AND heatmap > ? ORDER BY heatmap LIMIT ?", source, after, sweptOnce)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		var heatmap string
		if err := rows.Scan(&heatmap); err != nil {
			return nil, err
		}
		left = append(left, heatmap)
	}
	return left, rows.Err()
}

// used is how many bytes the file takes.
func (d *DB) used(ctx context.Context) (bytes int64, err error) {
	err = d.db.QueryRowContext(ctx, `SELECT (pages.page_count - free.freelist_count) * size.page_size
		FROM pragma_page_count pages, pragma_freelist_count free, pragma_page_size size`).Scan(&bytes)
	if err != nil {
		return 0, fmt.Errorf("history: %s: %w", d.path, err)
	}
	return bytes, nil
}
