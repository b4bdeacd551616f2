// Package plc shows machines the last verdict: on a coil of Modbus TCP, such as a reject gate's, and by a server of OPC UA. What is
// shown is a state and no queue: who was away sees the last verdict alone.
package plc

import (
	"sync"

	"rdpp/rdpp/history"
)

// State is what is shown.
type State struct {
	Last history.Record // whose ID is 0 as long as there is none
	// So many have been judged since the program began.
	Images, Anomalous, Broken int64
}

// Rejected says whether the last part is to be sorted out: what could not be judged is no good part.
func (s *State) Rejected() bool {
	return s.Last.Verdict == history.Anomalous || s.Last.Verdict == history.Broken
}

// Display is what shows states.
type Display interface {
	// Show shows a state. It does not wait for anybody.
	Show(State)
	Close() error
}

// Board counts verdicts and shows each on all of its displays. It is safe for concurrent use.
type Board struct {
	Displays []Display

	mu    sync.Mutex
	state State
}

// Begin shows the last verdict of before.
func (b *Board) Begin(r *history.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Last = *r
	b.show()
}

// Add shows a verdict.
func (b *Board) Add(r *history.Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.state.Last = *r
	b.state.Images++
	switch r.Verdict {
	case history.Anomalous:
		b.state.Anomalous++
	case history.Broken:
		b.state.Broken++
	}
	b.show()
}

func (b *Board) show() {
	for _, d := range b.Displays {
		d.Show(b.state)
	}
}

// Close closes the displays, of which nothing is shown any more.
func (b *Board) Close() (err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, d := range b.Displays {
		if failed := d.Close(); err == nil {
			err = failed
		}
	}
	b.Displays = nil
	return err
}
