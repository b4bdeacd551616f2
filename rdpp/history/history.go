// Package history keeps what was said of images in a file of SQLite: verdicts, what an operator has to say of them, and the
// journal by which each image that arrives in a folder is judged once. What is written survives the death of the process and
// of the machine at any moment; several processes may use a file at once.
package history

import (
	"cmp"
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-sqlite3"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/metric"
)

// Verdict is what is said of an image.
type Verdict string

const (
	Good      Verdict = "good"
	Anomalous Verdict = "anomalous"
	Broken    Verdict = "broken" // it could not be judged
)

// Record is what is known of an image that was judged.
type Record struct {
	ID     int64     // set by Add; later ones are larger
	Time   time.Time // of the verdict, kept to the microsecond
	Source string    // what asked, such as "image"
	Image  string    // its name, as given
	SHA256 string    // of the image's file, hexadecimal; "": not known

	Model       string // its category
	ModelSHA256 string // of the model's file, hexadecimal

	Verdict Verdict
	// These are what anomaly.Prediction has; zero where the verdict is Broken.
	Score, Threshold, PixelThreshold float64
	Provisional, Exact, PValueBound  bool
	PValue                           *float64
	Width, Height                    int
	Regions                          []metric.Region
	Warnings                         []string

	Brightness, Sharpness *float64 // of the image, as dataset.Look has them; nil: not known

	// MaskSHA256 is of the PNG file of the image's own mask of what was not scored, hexadecimal; "": it had none, or is of a version
	// that did not record masks. Add sets it where there is Mask, that file, which DB.Mask reads.
	MaskSHA256 string
	Mask       []byte

	Error string // why it is Broken

	Heatmap string // file; "": none
	Moved   string // where the image's file went; "": it stayed

	Correction Verdict   // the operator's; "": none
	Note       string    // the operator's
	Corrected  time.Time // when
}

// Of is a record of a prediction, without what that does not know.
func Of(p *anomaly.Prediction) Record {
	r := Record{Image: p.Image, Verdict: Good, Score: p.Score, Threshold: p.Threshold, PixelThreshold: p.PixelThreshold, Provisional: p.Provisional,
		Exact: p.Exact, PValue: p.PValue, PValueBound: p.PValueBound, Width: p.Width, Height: p.Height, Regions: p.Regions, Warnings: p.Warnings}
	if p.Anomalous {
		r.Verdict = Anomalous
	}
	return r
}

// Prediction is the prediction that a record is of.
func (r *Record) Prediction() anomaly.Prediction {
	v := anomaly.Verdict{Score: r.Score, Normalised: anomaly.Normalise(r.Score, r.Threshold), Anomalous: r.Verdict == Anomalous, Threshold: r.Threshold,
		PixelThreshold: r.PixelThreshold, Provisional: r.Provisional, Exact: r.Exact, PValue: r.PValue, PValueBound: r.PValueBound}
	return anomaly.Predicted(r.Image, v, r.Width, r.Height, r.Regions, r.Warnings)
}

// Options say how a history is opened. Zero means the defaults.
type Options struct {
	ReadOnly bool // the file has to be there
	// Removed is called with source and heat map of each record that retention removes, by any goroutine that writes, unless
	// another record names that heat map. Default: nothing. Sweep tells of what other processes remove, too.
	Removed func(source, heatmap string)
	// Added is called with each record that has been written, once it is on the disk, one at a time. Default: nothing.
	Added func(*Record)
}

// Retention bounds a history. The file keeps it, for all who write.
type Retention struct {
	Age   time.Duration // that records are kept for; 0: for ever. Records with a correction stay
	Bytes int64         // of the file, beside some MiB of its log; default 1 GiB. The oldest go first, those with a correction last
}

// LeastBytes is the smallest Retention.Bytes.
const LeastBytes = 4 << 20

const defaultBytes = 1 << 30

// driver is that of SQLite, whose log is cut to a size once nobody reads what is in it.
const (
	driver   = "rdpp-history"
	logBytes = 4 << 20
)

func init() {
	sql.Register(driver, &sqlite3.SQLiteDriver{ConnectHook: func(c *sqlite3.SQLiteConn) error {
		_, err := c.Exec(fmt.Sprintf("PRAGMA journal_size_limit = %d", logBytes), nil)
		return err
	}})
}

var (
	// ErrForeign is wrapped by the errors about files that are no history.
	ErrForeign = errors.New("this is no history that rdpp wrote")
	// ErrNone is wrapped by the errors about records that are not there.
	ErrNone = errors.New("there is no such record")
	// ErrNoMask is wrapped by the errors about masks that are not there.
	ErrNoMask = errors.New("the mask is not in the history, or damaged")
)

// The header of the file says whose it is, and which version of the schema it has.
const (
	applicationID = 0x72647070 // "rdpp"
	schemaVersion = 1
)

const schema = `
CREATE TABLE records (
	id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, source TEXT NOT NULL, image TEXT NOT NULL, sha256 TEXT NOT NULL,
	model TEXT NOT NULL, model_sha256 TEXT NOT NULL, verdict TEXT NOT NULL, score REAL NOT NULL, threshold REAL NOT NULL,
	pixel_threshold REAL NOT NULL, provisional INTEGER NOT NULL, exact INTEGER NOT NULL, p_value REAL, p_value_bound INTEGER NOT NULL, width INTEGER NOT NULL,
	height INTEGER NOT NULL, regions TEXT NOT NULL, warnings TEXT NOT NULL, error TEXT NOT NULL, heatmap TEXT NOT NULL, moved TEXT NOT NULL, correction TEXT NOT NULL DEFAULT '', note TEXT NOT NULL DEFAULT '',
	corrected INTEGER NOT NULL DEFAULT 0);
CREATE INDEX records_time ON records (time);
CREATE INDEX records_image ON records (image);
CREATE INDEX records_correction ON records (correction) WHERE correction <> '';
CREATE TABLE arrivals (
	folder TEXT NOT NULL, path TEXT NOT NULL, size INTEGER NOT NULL, time INTEGER NOT NULL, sha256 TEXT NOT NULL,
	record INTEGER NOT NULL, pending INTEGER NOT NULL, PRIMARY KEY (folder, path)) WITHOUT ROWID;
CREATE TABLE retention (age INTEGER NOT NULL, bytes INTEGER NOT NULL);
INSERT INTO retention VALUES (0, 0);
`

// additions are what files of before lack.
const additions = `
CREATE TABLE IF NOT EXISTS masks (sha256 TEXT NOT NULL PRIMARY KEY, png BLOB NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_mask ON records (mask) WHERE mask <> '';
CREATE TABLE IF NOT EXISTS leavings (source TEXT NOT NULL, heatmap TEXT NOT NULL, PRIMARY KEY (source, heatmap)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS records_heatmap ON records (heatmap) WHERE heatmap <> '';
CREATE TABLE IF NOT EXISTS states (name TEXT NOT NULL PRIMARY KEY, record INTEGER NOT NULL, state BLOB NOT NULL) WITHOUT ROWID;
` + outboxes

// later are the columns of records that files of before lack, and what stands for them there.
var later = []struct{ name, kind, lacking string }{
	{"brightness", "REAL", "NULL"}, {"sharpness", "REAL", "NULL"}, {"mask", "TEXT NOT NULL DEFAULT ''", "''"},
}

// has says whether the records of a file have a column.
func has(row func(query string, args ...any) *sql.Row, column string) (there bool, err error) {
	err = row("SELECT EXISTS (SELECT 1 FROM pragma_table_info('records') WHERE name = ?)", column).Scan(&there)
	return there, err
}

// DB is a history. It is safe for concurrent use.
type DB struct {
	path    string
	db      *sql.DB
	columns string // of records, as scan reads them
	removed func(source, heatmap string)
	added   func(*Record)

	adding  chan *addition
	closing chan struct{} // closed by Close
	ended   chan struct{} // closed when nothing is written any more
	once    sync.Once

	mu    sync.Mutex
	since int             // records written since retention was looked at
	woken []chan struct{} // of those who send

	telling sync.Mutex // held while added is called
}

// addition are records that wait to be written.
type addition struct {
	records []*Record
	done    chan error
}

// Open opens a history, and makes it where there is none. The file has to be on a disk of this machine: beside it come two more
// while it is open, which network shares cannot hold.
func Open(path string, opt *Options) (*DB, error) {
	if opt == nil {
		opt = &Options{}
	}
	d, err := open(path, opt)
	if err != nil {
		return nil, fmt.Errorf("history: %s: %w", path, err)
	}
	return d, nil
}

func open(path string, opt *Options) (*DB, error) {
	full, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	switch info, err := os.Stat(full); {
	case errors.Is(err, fs.ErrNotExist) && !opt.ReadOnly:
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w; name the file that what judges images has written", fs.ErrNotExist)
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("is no regular file; name another")
	}
	// Waiting for others beats failing; a commit is on the disk when it returns.
	// A reader may write, too, as far as the file lets it: else what comes beside it while it is open would stay there.
	query := "_busy_timeout=20000&mode=rw&_query_only=true"
	if !opt.ReadOnly {
		query = "_busy_timeout=20000&_synchronous=FULL&_txlock=immediate&_auto_vacuum=incremental"
	}
	db, err := sql.Open(driver, (&url.URL{Scheme: "file", Path: full, RawQuery: query}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(8)
	d := &DB{path: path, db: db, columns: columns, removed: opt.Removed, added: opt.Added,
		adding: make(chan *addition, 64), closing: make(chan struct{}),
		ended: make(chan struct{})}
	if d.removed == nil {
		d.removed = func(string, string) {}
	}
	if d.added == nil {
		d.added = func(*Record) {}
	}
	if err := d.prepare(opt.ReadOnly); err != nil {
		db.Close()
		return nil, err
	}
	if opt.ReadOnly {
		close(d.ended)
	} else {
		go d.write()
	}
	return d, nil
}

// prepare makes the tables of a new file, and refuses files of others.
func (d *DB) prepare(readOnly bool) error {
	var application, version, tables int
	err := d.db.QueryRow(`SELECT (SELECT application_id FROM pragma_application_id), (SELECT user_version FROM pragma_user_version),
		(SELECT count(*) FROM sqlite_schema)`).Scan(&application, &version, &tables)
	switch {
	case err != nil && strings.Contains(err.Error(), "not a database"):
		return ErrForeign
	case err != nil && unopened(err):
		return fmt.Errorf("%w; its folder has to be one that you may write to, also to read it: two more files come beside it", err)
	case err != nil:
		return err
	case tables > 0 && application != applicationID || tables == 0 && readOnly:
		return ErrForeign
	case version > schemaVersion:
		return fmt.Errorf("it is of a later version, %d, this program knows %d; use the rdpp that wrote it", version, schemaVersion)
	}
	for _, column := range later {
		name := column.name
		if readOnly {
			there, err := has(d.db.QueryRow, name)
			if err != nil {
				return err
			}
			if !there {
				name = column.lacking
			}
		}
		d.columns += ", " + name
	}
	if readOnly {
		return nil
	}
	var mode string
	if err := d.db.QueryRow("PRAGMA journal_mode = WAL").Scan(&mode); err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("it cannot be written safely there; put it on a disk of this machine (its journal is %q)", mode)
	}
	return d.transact(context.Background(), func(tx *sql.Tx) error {
		// Another process may have made the tables meanwhile.
		if err := tx.QueryRow("SELECT count(*) FROM sqlite_schema").Scan(&tables); err != nil {
			return err
		}
		if tables == 0 {
			if _, err := tx.Exec(fmt.Sprintf("%s PRAGMA application_id = %d; PRAGMA user_version = %d", schema, applicationID, schemaVersion)); err != nil {
				return err
			}
		}
		for _, column := range later {
			there, err := has(tx.QueryRow, column.name)
			if err == nil && !there {
				_, err = tx.Exec("ALTER TABLE records ADD COLUMN " + column.name + " " + column.kind)
			}
			if err != nil {
				return err
			}
		}
		_, err := tx.Exec(additions)
		return err
	})
}

// unopened says whether SQLite could not open or make a file that it needs.
func unopened(err error) bool {
	fault := sqlite3.Error{}
	return errors.As(err, &fault) && (fault.Code == sqlite3.ErrCantOpen || fault.Code == sqlite3.ErrReadonly)
}

// Close writes what waits and closes the file. It is idempotent.
func (d *DB) Close() error {
	d.once.Do(func() { close(d.closing) })
	<-d.ended
	return d.db.Close()
}

// transact runs f in a transaction, which no other writer is in.
func (d *DB) transact(ctx context.Context, f func(*sql.Tx) error) error {
	tx, err := d.db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer tx.Rollback()
	if err := f(tx); err != nil {
		return err
	}
	return tx.Commit()
}

// Add writes records and sets their IDs. When it returns they are on the disk, all or none of them.
func (d *DB) Add(ctx context.Context, records ...*Record) error {
	a := &addition{records, make(chan error, 1)}
	select {
	case d.adding <- a:
	case <-d.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case err := <-a.done:
		return err
	case <-ctx.Done(): // it is being written all the same
		return ctx.Err()
	case <-d.ended:
	}
	select {
	case err := <-a.done: // it was among the last
		return err
	default:
		return fmt.Errorf("history: %s: %w", d.path, fs.ErrClosed)
	}
}

// write commits what waits together: a commit waits for the disk.
func (d *DB) write() {
	defer close(d.ended)
	for {
		var waiting []*addition
		select {
		case a := <-d.adding:
			waiting = append(waiting, a)
		case <-d.closing:
			select {
			case a := <-d.adding:
				waiting = append(waiting, a)
			default:
				return
			}
		}
		for more := true; more && len(waiting) < cap(d.adding); {
			select {
			case a := <-d.adding:
				waiting = append(waiting, a)
			default:
				more = false
			}
		}
		if count := d.commit(waiting); count > 0 {
			_ = d.wrote(count) // what is too much now is so the next time
		}
	}
}

// commit writes additions together and says how many records are written. One that cannot be written keeps no other from it.
func (d *DB) commit(waiting []*addition) (count int) {
	refused := false
	err := d.transact(context.Background(), func(tx *sql.Tx) error {
		for _, a := range waiting {
			for _, r := range a.records {
				if err := insert(tx, r); err != nil {
					refused = true
					return err
				}
				count++
			}
		}
		return nil
	})
	if refused && len(waiting) > 1 {
		count = 0
		for i := range waiting {
			count += d.commit(waiting[i : i+1])
		}
		return count
	}
	if err != nil {
		count, err = 0, fmt.Errorf("history: %s: %w", d.path, err)
	}
	for _, a := range waiting {
		if err == nil {
			d.tell(a.records...)
		}
		a.done <- err
	}
	return count
}

// tell tells of records that have been written.
func (d *DB) tell(records ...*Record) {
	d.telling.Lock()
	defer d.telling.Unlock()
	for _, r := range records {
		d.added(r)
	}
	d.wake()
}

func insert(tx *sql.Tx, r *Record) error {
	regions, err := json.Marshal(r.Regions)
	if err != nil {
		return err
	}
	warnings, err := json.Marshal(r.Warnings)
	if err != nil {
		return err
	}
	if len(r.Mask) > 0 {
		r.MaskSHA256 = fmt.Sprintf("%x", sha256.Sum256(r.Mask))
		if _, err := tx.Exec("INSERT OR IGNORE INTO masks VALUES (?, ?)", r.MaskSHA256, r.Mask); err != nil {
			return err
		}
	}
	result, err := tx.Exec(`INSERT INTO records (time, source, image, sha256, model, model_sha256, verdict, score, threshold, pixel_threshold,
		provisional, exact, p_value, p_value_bound, width, height, regions, warnings, error, heatmap, moved, brightness, sharpness, mask)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)`, r.Time.UnixMicro(), r.Source, r.Image, r.SHA256, r.Model, r.ModelSHA256,
		string(r.Verdict), r.Score, r.Threshold, r.PixelThreshold, r.Provisional, r.Exact, r.PValue, r.PValueBound, r.Width, r.Height, string(regions), string(warnings),
		r.Error, r.Heatmap, r.Moved, r.Brightness, r.Sharpness, r.MaskSHA256)
	if err == nil {
		r.ID, err = result.LastInsertId()
	}
	return err
}

// Filter says which records are wanted. Zero fields want any.
type Filter struct {
	ID           int64
	After        int64     // with larger IDs
	Since, Until time.Time // Until is not included
	Source       string
	Image        string // as its name, its end behind a slash, or where it was moved to, likewise
	Model        string
	Verdict      Verdict
	Correction   Verdict // of the operator
	Corrected    bool    // with a correction, whichever
	Last         int     // so many of the latest alone
}

// where are the conditions in SQL, and their arguments.
func (f *Filter) where() (text string, args []any) {
	conditions := []string{"1"}
	add := func(wanted bool, condition string, values ...any) {
		if wanted {
			conditions, args = append(conditions, condition), append(args, values...)
		}
	}
	add(f.ID != 0, "id = ?", f.ID)
	add(f.After != 0, "id > ?", f.After)
	add(!f.Since.IsZero(), "time >= ?", f.Since.UnixMicro())
	add(!f.Until.IsZero(), "time < ?", f.Until.UnixMicro())
	add(f.Source != "", "source = ?", f.Source)
	end := "/" + f.Image
	add(f.Image != "", "(image = ? OR moved = ? OR substr(image, -length(?)) = ? OR substr(moved, -length(?)) = ?)", f.Image, f.Image, end, end, end, end)
	add(f.Model != "", "model = ?", f.Model)
	add(f.Verdict != "", "verdict = ?", string(f.Verdict))
	add(f.Correction != "", "correction = ?", string(f.Correction))
	add(f.Corrected, "correction <> ''")
	return strings.Join(conditions, " AND "), args
}

const columns = `id, time, source, image, sha256, model, model_sha256, verdict, score, threshold, pixel_threshold, provisional, exact,
	p_value, p_value_bound, width, height, regions, warnings, error, heatmap, moved, correction, note, corrected`

// listedOnce is how many records List reads at once: a reader that stays open keeps the log from being reused.
const listedOnce = 1000

// List yields the records that a filter wants, the oldest first, without those that are added meanwhile. An error ends it.
func (d *DB) List(ctx context.Context, f Filter) iter.Seq2[*Record, error] {
	return func(yield func(*Record, error) bool) {
		first, last, err := d.span(ctx, &f)
		for err == nil && first <= last {
			var page []*Record
			if page, err = d.page(ctx, &f, first, last); err != nil {
				break
			}
			for _, r := range page {
				if !yield(r, nil) {
					return
				}
			}
			if len(page) < listedOnce {
				return
			}
			first = page[len(page)-1].ID + 1
		}
		if err != nil {
			yield(nil, fmt.Errorf("history: %s: %w", d.path, err))
		}
	}
}

// span is from which ID to which the records that a filter wants lie.
func (d *DB) span(ctx context.Context, f *Filter) (first, last int64, err error) {
	if f.Last <= 0 {
		err = d.db.QueryRowContext(ctx, "SELECT coalesce(max(id), 0) FROM records").Scan(&last)
		return 1, last, err
	}
	where, args := f.where()
	err = d.db.QueryRowContext(ctx, "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM (SELECT id FROM records WHERE "+where+
		" ORDER BY id DESC LIMIT ?)", append(args, f.Last)...).Scan(&first, &last)
	return first, last, err
}

// page reads the first records of a span that a filter wants.
func (d *DB) page(ctx context.Context, f *Filter, first, last int64) (all []*Record, err error) {
	where, args := f.where()
	rows, err := d.db.QueryContext(ctx, "SELECT "+d.columns+" FROM records WHERE "+where+" AND id BETWEEN ? AND ? ORDER BY id LIMIT ?",
		append(args, first, last, listedOnce)...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	for rows.Next() {
		r, err := scan(rows)
		if err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, rows.Err()
}

func scan(rows *sql.Rows) (*Record, error) {
	var r Record
	var at, corrected int64
	var regions, warnings string
	err := rows.Scan(&r.ID, &at, &r.Source, &r.Image, &r.SHA256, &r.Model, &r.ModelSHA256, &r.Verdict, &r.Score, &r.Threshold,
		&r.PixelThreshold, &r.Provisional, &r.Exact, &r.PValue, &r.PValueBound, &r.Width, &r.Height, &regions, &warnings,
		&r.Error, &r.Heatmap, &r.Moved, &r.Correction, &r.Note, &corrected, &r.Brightness, &r.Sharpness, &r.MaskSHA256)
	if err != nil {
		return nil, err
	}
	r.Time = time.UnixMicro(at)
	if corrected != 0 {
		r.Corrected = time.UnixMicro(corrected)
	}
	return &r, errors.Join(json.Unmarshal([]byte(regions), &r.Regions), json.Unmarshal([]byte(warnings), &r.Warnings))
}

// Mask is the file of a mask by its SHA-256, as Record has it. One that is not there, or is another by now, is ErrNoMask.
func (d *DB) Mask(ctx context.Context, sum string) (png []byte, err error) {
	err = d.db.QueryRowContext(ctx, "SELECT png FROM masks WHERE sha256 = ?", sum).Scan(&png)
	if errors.Is(err, sql.ErrNoRows) || err == nil && fmt.Sprintf("%x", sha256.Sum256(png)) != sum {
		err = ErrNoMask
	}
	if err != nil {
		return nil, fmt.Errorf("history: %s: %.12s: %w", d.path, sum, err)
	}
	return png, nil
}

// Correct notes what an operator says of an image: Good or Anomalous, or "" to take a correction back. A record that is not there
// is ErrNone.
func (d *DB) Correct(ctx context.Context, id int64, verdict Verdict, note string) error {
	if verdict != Good && verdict != Anomalous && verdict != "" {
		return fmt.Errorf("history: %s: a correction is %q or %q, not %q", d.path, Good, Anomalous, verdict)
	}
	at := time.Now().UnixMicro()
	if verdict == "" {
		at, note = 0, ""
	}
	err := d.transact(ctx, func(tx *sql.Tx) error {
		result, err := tx.Exec("UPDATE records SET correction = ?, note = ?, corrected = ? WHERE id = ?", string(verdict), note, at, id)
		if err != nil {
			return err
		}
		if n, err := result.RowsAffected(); err != nil || n == 0 {
			return cmp.Or(err, fmt.Errorf("record %d: %w", id, ErrNone))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("history: %s: %w", d.path, err)
	}
	return nil
}

// Count is how many records there are.
func (d *DB) Count(ctx context.Context) (n int, err error) {
	if err := d.db.QueryRowContext(ctx, "SELECT count(*) FROM records").Scan(&n); err != nil {
		return 0, fmt.Errorf("history: %s: %w", d.path, err)
	}
	return n, nil
}
