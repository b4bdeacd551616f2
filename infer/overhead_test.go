package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"
	"time"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/rdpp/testmain"
	"rdpp/torch"
)

var (
	overheadOf    = flag.Int("overhead", 0, "let TestOverhead judge so many images each time")
	overheadPairs = flag.Int("overhead-pairs", 5, "so many times each way")
	overheadSize  = flag.Int("overhead-size", 128, "by a resnet18 that sees so many pixels")
	overheadModel = flag.String("overhead-model", "", "or by the model in `FILE`")
	overheadPiece = flag.Int("overhead-piece", 1000, "images of a piece")
)

// TestOverhead measures what it costs to have one worker judge a list that a NATS server hands out, beside infer batch in one process
// without it: whole commands, in turn, in processes of their own. The worker, which stays, has judged another list before.
func TestOverhead(t *testing.T) {
	if *overheadOf == 0 {
		t.Skip("takes minutes of a machine without other work; -overhead 10000 runs it")
	}
	model := *overheadModel
	if model == "" {
		c := rdpp.DefaultConfig()
		c.Arch, c.ImageSize = "resnet18", *overheadSize
		m, err := rdpp.NewModel(c, torch.CPU)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		model = filepath.Join(t.TempDir(), "model.safetensors")
		m.Info.Calibration = rdpp.Calibration{Rule: "none", Provisional: true, Threshold: 1, PixelThreshold: 1}
		if err := m.Save(model); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(t.TempDir())
	scattered(t, "in", *overheadOf/6)
	scattered(t, "warm", 2)
	address, _ := natsServer(t)
	threads := strconv.Itoa(allowance.CPUs())
	worker, _ := testmain.Start(t, asProgram, nil, "worker", "--nats", address, "--device", "cpu", "--threads", threads, "--models", "models")
	defer worker.Process.Kill()
	judge := func(list, out string, further ...string) time.Duration {
		args := append([]string{"batch", "--model", model, "--device", "cpu", "--threads", threads, "--list", list, "--out", out, "--quiet", "--precision", "fp32",
			"--piece", strconv.Itoa(*overheadPiece)}, further...)
		cmd := testmain.Child(asProgram, args...)
		cmd.Stderr = os.Stderr
		began := time.Now()
		if err := cmd.Run(); err != nil {
			t.Fatalf("%q: %v", args, err)
		}
		return time.Since(began)
	}
	judge("warm", "warm.out", "--nats", address)
	var ratios []float64
	var alone, apart time.Duration
	for pair := range *overheadPairs {
		var a, b time.Duration
		one := func() { a = judge("in", fmt.Sprint("alone", pair)) }
		two := func() { b = judge("in", fmt.Sprint("apart", pair), "--nats", address) }
		if pair%2 == 0 {
			one()
			two()
		} else {
			two()
			one()
		}
		ratios = append(ratios, b.Seconds()/a.Seconds())
		alone, apart = alone+a, apart+b
		t.Logf("pair %d: %.2f s alone, %.2f s by a worker, ratio %.4f", pair+1, a.Seconds(), b.Seconds(), ratios[pair])
		wantEqual(t, content(t, fmt.Sprint("apart", pair)), content(t, fmt.Sprint("alone", pair)))
	}
	slices.Sort(ratios)
	t.Logf("%d images at %d pixels, %d pairs: %.2f s alone, %.2f s by a worker, ratio %.4f, median of the pairs' %.4f", *overheadOf/6*6+1, *overheadSize,
		*overheadPairs, alone.Seconds(), apart.Seconds(), apart.Seconds()/alone.Seconds(), ratios[len(ratios)/2])
}
