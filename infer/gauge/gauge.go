// Package gauge tells Prometheus what a lookout knows of a line.
package gauge

import (
	"github.com/prometheus/client_golang/prometheus"

	"rdpp/rdpp/lookout"
)

var (
	labels       = []string{"model", "stream"}
	evidenceDesc = prometheus.NewDesc("rdpp_drift_evidence", "Evidence that a stream of good images has moved; a warning comes at 1.", labels, nil)
	usualDesc    = prometheus.NewDesc("rdpp_drift_usual", "Median of a stream of good images, of the model's reference or else so far.", labels, nil)
	nowDesc      = prometheus.NewDesc("rdpp_drift_now", "Median of the latest 10 of a stream of good images.", labels, nil)
	warningsDesc = prometheus.NewDesc("rdpp_drift_warnings_total", "Warnings that a stream of good images has moved.", labels, nil)
)

// Describe tells what Collect collects.
func Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{evidenceDesc, usualDesc, nowDesc, warningsDesc} {
		to <- d
	}
}

// Collect collects the figures of a model's lookout.
func Collect(to chan<- prometheus.Metric, model string, figures []lookout.Figure) {
	for _, f := range figures {
		to <- prometheus.MustNewConstMetric(evidenceDesc, prometheus.GaugeValue, f.Evidence, model, f.Stream)
		to <- prometheus.MustNewConstMetric(usualDesc, prometheus.GaugeValue, f.Usual, model, f.Stream)
		to <- prometheus.MustNewConstMetric(nowDesc, prometheus.GaugeValue, f.Now, model, f.Stream)
		to <- prometheus.MustNewConstMetric(warningsDesc, prometheus.CounterValue, float64(f.Warnings), model, f.Stream)
	}
}
