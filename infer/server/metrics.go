package server

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"rdpp/infer/gauge"
	"rdpp/torch"
)

// metrics is what /metrics tells. Labels take few values: addresses as they are registered, models that are there.
type metrics struct {
	registry *prometheus.Registry
	logger   *slog.Logger
	page     promhttp.HandlerOpts
	scrapes  chan struct{} // holds one for each that figures are gathered for

	requests *prometheus.CounterVec   // route, method, code
	duration *prometheus.HistogramVec // route

	wait, batch, batchTime *prometheus.HistogramVec // model
	images, anomalies      *prometheus.CounterVec   // model
	loads                  *prometheus.CounterVec   // model, result

	cut prometheus.Counter
}

// newMetrics registers all figures. Those of now are asked of memory, loaded and the device when somebody looks.
func newMetrics(device torch.Device, logger *slog.Logger, memory *budget, loaded func() []*model) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), logger: logger, scrapes: make(chan struct{}, maxScrapes)}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		v := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(v)
		return v
	}
	histogram := func(name, help, label string, buckets []float64) *prometheus.HistogramVec {
		v := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
		m.registry.MustRegister(v)
		return v
	}
	seconds := prometheus.ExponentialBuckets(0.001, 2, 16) // to 33 s
	m.requests = counter("rdpp_requests_total", "Requests answered, by address, method and status, 499: the client left; calls of gRPC by their code.", "route", "method", "code")
	m.duration = histogram("rdpp_request_seconds", "Time from a request's head to its answer's end, by address.", "route", seconds)
	m.wait = histogram("rdpp_queue_wait_seconds", "Time that an image waited for its batch.", "model", seconds)
	m.batch = histogram("rdpp_batch_images", "Images in a batch.", "model", prometheus.ExponentialBuckets(1, 2, 8))
	m.batchTime = histogram("rdpp_batch_seconds", "Time of a batch in the networks.", "model", seconds)
	m.images = counter("rdpp_images_total", "Images judged.", "model")
	m.anomalies = counter("rdpp_anomalies_total", "Images judged anomalous.", "model")
	m.loads = counter("rdpp_model_loads_total", "Model files read, by result: ok or failed.", "model", "result")
	m.cut = prometheus.NewCounter(prometheus.CounterOpts{Name: "rdpp_connections_cut_total", Help: "Connections closed because too many were open."})
	m.registry.MustRegister(m.cut)
	for _, c := range []prometheus.Collector{collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		&moment{device: device, memory: memory, loaded: loaded}} {
		m.registry.MustRegister(guarded{c, logger})
	}
	// What cannot be read is left out and logged.
	m.page = promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError, ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelWarn)}
	return m
}

// Figures are gathered for so many at once, and are waited for so long, which is Prometheus' own default: a device that does
// not answer keeps no more goroutines than that.
const (
	maxScrapes = 4
	scrapeTime = 10 * time.Second
)

// serve answers GET /metrics.
func (m *metrics) serve(x *exchange, r *http.Request) error {
	select {
	case m.scrapes <- struct{}{}:
	default:
		return busy(0, "%d others ask for the metrics; ask again when they have them", maxScrapes)
	}
	type outcome struct {
		figures prometheus.GathererFunc
		err     error
	}
	gathered := make(chan outcome, 1)
	go func() {
		defer func() { <-m.scrapes }()
		figures, err := m.gather()
		gathered <- outcome{figures, err}
	}()
	select {
	case o := <-gathered:
		if o.err == nil {
			promhttp.HandlerFor(o.figures, m.page).ServeHTTP(x, r)
		}
		return o.err
	case <-time.After(scrapeTime):
		return busy(0, "the metrics took more than %v to gather; a device may not answer", scrapeTime)
	case <-r.Context().Done():
		return r.Context().Err()
	}
}

// gather collects all figures and returns what hands them out. A panic on the way is errFault; figures that cannot be read are
// not an error of its own.
func (m *metrics) gather() (figures prometheus.GathererFunc, err error) {
	defer recovered(m.logger, &err)
	families, missing := m.registry.Gather()
	all := prometheus.MultiError{missing}
	errors.As(missing, &all) // which does not unwrap
	if slices.ContainsFunc(all, func(err error) bool { return errors.Is(err, errFault) }) {
		return nil, errFault
	}
	return known(families, missing), nil
}

// guarded is a collector whose panic becomes a figure that cannot be read: the registry collects on goroutines of its own, of
// which a panic would end the process.
type guarded struct {
	prometheus.Collector
	logger *slog.Logger
}

func (c guarded) Collect(to chan<- prometheus.Metric) {
	var err error
	defer func() {
		if err != nil {
			to <- prometheus.NewInvalidMetric(prometheus.NewInvalidDesc(err), err)
		}
	}()
	defer recovered(c.logger, &err)
	c.Collector.Collect(to)
}

// known is a function that returns what is known already.
func known[T any](value T, err error) func() (T, error) {
	return func() (T, error) { return value, err }
}

var methods = []string{"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}

func (m *metrics) request(x *exchange, r *http.Request, taken time.Duration) {
	method := r.Method
	if !slices.Contains(methods, method) {
		method = "other"
	}
	m.requests.WithLabelValues(x.route, method, x.outcome()).Inc()
	m.duration.WithLabelValues(x.route).Observe(taken.Seconds())
}

func (m *metrics) load(model string, err error) {
	result := "ok"
	if err != nil {
		result = "failed"
	}
	m.loads.WithLabelValues(model, result).Inc()
}

// forget drops the figures of a model that is gone.
func (m *metrics) forget(model string) {
	label := prometheus.Labels{"model": model}
	for _, v := range []interface {
		DeletePartialMatch(prometheus.Labels) int
	}{m.wait, m.batch, m.batchTime, m.images, m.anomalies, m.loads} {
		v.DeletePartialMatch(label)
	}
}

// moment collects what is the case now.
type moment struct {
	device torch.Device
	memory *budget
	loaded func() []*model
}

var (
	depthDesc   = prometheus.NewDesc("rdpp_queue_images", "Images that wait for a batch.", []string{"model"}, nil)
	modelDesc   = prometheus.NewDesc("rdpp_model_version", "Version of the model in use; no line: not ready.", []string{"model"}, nil)
	budgetDesc  = prometheus.NewDesc("rdpp_budget_bytes", "Memory that requests hold, and may hold at most: bodies, images, answers.", []string{"kind"}, nil)
	refusedDesc = prometheus.NewDesc("rdpp_budget_refused_total", "How often a request found no room in that memory.", nil, nil)
	memoryDesc  = prometheus.NewDesc("rdpp_device_memory_bytes", "Memory of the CUDA device in tensors, now and at most so far; 0 on the CPU.", []string{"device", "kind"}, nil)
)

func (c *moment) Describe(to chan<- *prometheus.Desc) {
	to <- depthDesc
	to <- modelDesc
	to <- budgetDesc
	to <- refusedDesc
	to <- memoryDesc
	gauge.Describe(to)
}

func (c *moment) Collect(to chan<- prometheus.Metric) {
	figure := func(d *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, m := range c.loaded() {
		figure(depthDesc, float64(m.queue.length()), m.name)
		figure(modelDesc, float64(m.version), m.name)
		gauge.Collect(to, m.name, m.line.figures())
	}
	held, refused := c.memory.now()
	figure(budgetDesc, float64(held), "used")
	figure(budgetDesc, float64(c.memory.limit), "limit")
	to <- prometheus.MustNewConstMetric(refusedDesc, prometheus.CounterValue, float64(refused))
	used, peak, err := torch.DeviceMemory(c.device)
	if err != nil {
		to <- prometheus.NewInvalidMetric(memoryDesc, err)
		return
	}
	figure(memoryDesc, float64(used), c.device.String(), "used")
	figure(memoryDesc, float64(peak), c.device.String(), "peak")
}
