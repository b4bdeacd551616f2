package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
)

// SetState keeps what somebody knows who goes through records, up to one of them, under a name; it takes the place of what was there.
func (d *DB) SetState(ctx context.Context, name string, record int64, state []byte) error {
	err := d.transact(ctx, func(tx *sql.Tx) error {
		_, err := tx.Exec("INSERT OR REPLACE INTO states VALUES (?, ?, ?)", name, record, state)
		return err
	})
	if err != nil {
		return fmt.Errorf("history: %s: the state of %s: %w", d.path, name, err)
	}
	return nil
}

// State is what SetState has kept under a name; nil where that is nothing.
func (d *DB) State(ctx context.Context, name string) (record int64, state []byte, err error) {
	err = d.db.QueryRowContext(ctx, "SELECT record, state FROM states WHERE name = ?", name).Scan(&record, &state)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil, nil
	}
	if err != nil {
		return 0, nil, fmt.Errorf("history: %s: the state of %s: %w", d.path, name, err)
	}
	return record, state, nil
}
