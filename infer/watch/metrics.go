package watch

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"rdpp/infer/gauge"
	"rdpp/rdpp/history"
)

// metricsEvery is how often the file of metrics is written.
const metricsEvery = 10 * time.Second

// metrics writes a file that node_exporter's textfile collector reads: a watch listens nowhere, and one that cron calls is there
// for moments. It counts over all watches of the folder, so that the figures of one after the other go on.
type metrics struct {
	file     string
	registry *prometheus.Registry
	watch    *watch
	counted  map[history.Verdict]int
	last     int64     // record, the latest that is counted
	latest   time.Time // verdict
}

var (
	imagesDesc = prometheus.NewDesc("rdpp_watch_images_total", "Images of the folder that were judged, by verdict.", []string{"verdict"}, nil)
	latestDesc = prometheus.NewDesc("rdpp_watch_latest_timestamp_seconds", "Time of the latest verdict.", nil, nil)
)

// openMetrics goes on counting where the history's counts end.
func openMetrics(ctx context.Context, w *watch) (*metrics, error) {
	m := &metrics{file: w.Metrics, registry: prometheus.NewRegistry(), watch: w, counted: map[history.Verdict]int{}}
	if err := prometheus.WrapRegistererWith(prometheus.Labels{"folder": w.root}, m.registry).Register(m); err != nil {
		return nil, err
	}
	record, text, err := w.History.State(ctx, m.name())
	if err != nil {
		return nil, err
	}
	if text != nil {
		counted := map[history.Verdict]int{}
		if json.Unmarshal(text, &counted) == nil && counted != nil { // else they are counted again
			m.counted, m.last = counted, record
		}
	}
	for r, err := range w.History.List(ctx, history.Filter{Source: w.source, After: m.last}) {
		if err != nil {
			return nil, err
		}
		m.count(r)
	}
	return m, nil
}

func (m *metrics) name() string { return "images:" + m.watch.source }

func (m *metrics) count(r *history.Record) {
	m.counted[r.Verdict]++
	m.last, m.latest = r.ID, r.Time
}

// save keeps the counts, from which the next watch goes on.
func (m *metrics) save(ctx context.Context) error {
	text, err := json.Marshal(m.counted)
	if err == nil {
		err = m.watch.History.SetState(ctx, m.name(), m.last, text)
	}
	return err
}

// write writes the file whole.
func (m *metrics) write() error {
	if err := prometheus.WriteToTextfile(m.file, m.registry); err != nil {
		return fmt.Errorf("%s: the metrics cannot be written: %w", m.file, err)
	}
	return nil
}

// Describe is part of prometheus.Collector.
func (m *metrics) Describe(to chan<- *prometheus.Desc) {
	to <- imagesDesc
	to <- latestDesc
	gauge.Describe(to)
}

// Collect is part of prometheus.Collector. Nothing is judged meanwhile.
func (m *metrics) Collect(to chan<- prometheus.Metric) {
	for _, v := range []history.Verdict{history.Good, history.Anomalous, history.Broken} {
		to <- prometheus.MustNewConstMetric(imagesDesc, prometheus.CounterValue, float64(m.counted[v]), string(v))
	}
	if !m.latest.IsZero() {
		to <- prometheus.MustNewConstMetric(latestDesc, prometheus.GaugeValue, float64(m.latest.UnixMilli())/1000)
	}
	if d := &m.watch.drifts; d.lookout != nil {
		gauge.Collect(to, d.kept.Category, d.lookout.Figures())
	}
}
