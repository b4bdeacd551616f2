// Package anomaly has the results that every method of finding anomalies leads to: losses, metrics, calibrations and
// verdicts, each once, with the names that they have in JSON. It knows no network, so that pages, tables and services can
// use it without libtorch.
package anomaly

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
)

// Loss is a term of a training loss, or the total.
type Loss struct {
	Name  string // as in JSON and tables, such as "kd"; the total's is LossTotal
	Value float64
}

// LossTotal is the name of the weighted sum that learning makes small.
const LossTotal = "total"

// Losses are what a step or an epoch has to say of its losses, in the order in which people see them. Their JSON is one
// object with a member per loss.
type Losses []Loss

// Get is the value of a loss; 0 where there is none of the name.
func (l Losses) Get(name string) float64 {
	for _, loss := range l {
		if loss.Name == name {
			return loss.Value
		}
	}
	return 0
}

// Plus adds factor times each loss of m to the loss of its name. Nil stands for zeros.
func (l Losses) Plus(m Losses, factor float64) Losses {
	sum := make(Losses, len(m))
	for i, loss := range m {
		sum[i] = Loss{loss.Name, l.Get(loss.Name) + factor*loss.Value}
	}
	return sum
}

// Times is each loss times a factor.
func (l Losses) Times(factor float64) Losses { return Losses(nil).Plus(l, factor) }

// Finite says whether every loss is a number and finite.
func (l Losses) Finite() bool {
	for _, loss := range l {
		if math.IsNaN(loss.Value) || math.IsInf(loss.Value, 0) {
			return false
		}
	}
	return true
}

// MarshalJSON writes an object whose members are in the order of the losses.
func (l Losses) MarshalJSON() ([]byte, error) {
	text := []byte{'{'}
	for i, loss := range l {
		name, err := json.Marshal(loss.Name)
		if err != nil {
			return nil, err
		}
		value, err := json.Marshal(loss.Value)
		if err != nil {
			return nil, fmt.Errorf("loss %s: %w", loss.Name, err)
		}
		if i > 0 {
			text = append(text, ',')
		}
		text = append(append(append(text, name...), ':'), value...)
	}
	return append(text, '}'), nil
}

// UnmarshalJSON reads such an object.
func (l *Losses) UnmarshalJSON(text []byte) error {
	*l = nil
	in := json.NewDecoder(bytes.NewReader(text))
	start, err := in.Token()
	if err != nil {
		return err
	}
	if start == nil { // null
		return nil
	}
	if start != json.Delim('{') {
		return fmt.Errorf("losses: %v where an object of numbers is wanted", start)
	}
	for in.More() {
		name, err := in.Token()
		if err != nil {
			return err
		}
		var value float64
		if err := in.Decode(&value); err != nil {
			return err
		}
		*l = append(*l, Loss{fmt.Sprint(name), value})
	}
	_, err = in.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// Terms is the number of maps that a map of RD++ is the weighted sum of: one for each scale, finest first, then one for
// each scale's features averaged over 3 x 3 positions.
const Terms = 6

// MapTerms has a number for each of them.
type MapTerms [Terms]float64

// Facts are what a net knows of itself beside its tensors. They stand in the model file's document. A method whose nets
// know nothing but tensors has none.
type Facts struct {
	MapWeights MapTerms `json:"map_weights,omitzero"` // of RD++'s map: zero: the plain sum of the scales
	MapLevels  MapTerms `json:"map_levels,omitzero"`  // of log(1 + d/level); zero: the terms are distances d, also where they have weights
}
