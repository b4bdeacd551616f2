// Command infer finds defects in photographs of parts with a model that train made. `infer --help` lists its commands.
package main

import (
	"io"
	"log/slog"
	"os"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/command"
	"rdpp/rdpp/plc"
	"rdpp/torch"
)

var version = command.Version("infer", func() (string, error) {
	libtorch, err := torch.Version()
	return command.Versions(rdpp.Version, libtorch, rdpp.Commit()), err
}, rdpp.Notice)

var app = command.Program{
	Name:    "infer",
	Summary: "find defects in photographs of parts",
	Head:    "infer finds defects in photographs of parts with a model that `train` made.",
	Commands: []command.Command{
		{Name: "image", Summary: "score images and outline their defects", Run: runImage},
		{Name: "watch", Summary: "judge the images that arrive in a folder, each once", Run: runWatch, Patient: true},
		{Name: "batch", Summary: "score lists of any length, over machines, and sum them up", Run: runBatch},
		{Name: "worker", Summary: "score pieces that infer batch --nats hands out", Run: runWorker, Patient: true},
		{Name: "history", Summary: "list what was said of images, correct it, export it", Run: runHistory},
		{Name: "calibrate", Summary: "set a model's threshold by other good images, without training", Run: runCalibrate},
		{Name: "eval", Summary: "measure a model on a data set with good and defective images", Run: runEval},
		{Name: "serve", Summary: "answer over HTTP, with a page for browsers", Run: runServe, Patient: true},
		{Name: "bench", Summary: "measure latency, throughput and memory of models", Run: runBench},
		{Name: "import", Summary: "make a model file of a released checkpoint and its teacher", Run: runImport},
		{Name: "info", Summary: "say what a weight or model file holds", Run: runInfo},
		{Name: "export", Summary: "write a model for onnxruntime or libtorch, to run without rdpp", Run: runExport},
		version,
	},
	Version: version,
	Codes: `Exit codes: 0 done, 1 failed, 2 wrong usage, 3 anomalous, 130 interrupted.
`,
}

func main() {
	plc.Init()
	allowance.LimitGo()
	allowance.RelaxGo()
	slog.SetDefault(slog.New(command.LogTo(os.Stderr, "infer")))
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the program; it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := command.Context()
	defer stop()
	return app.Run(ctx, args, stdin, stdout, stderr)
}
