package rdpp

import (
	"slices"

	"rdpp/torch"
)

// PresetPaper names the released protocol.
const PresetPaper = "paper"

// Presets lists what Config.Preset takes.
func Presets() []string { return []string{PresetPaper} }

// paperEpochs are the released code's, by the category's folder. It says nothing of others, which get its most.
var paperEpochs = map[string]int{"carpet": 10, "leather": 10, "wood": 100, "hazelnut": 160, "metal_nut": 160, "pill": 200, "bottle": 200,
	"cable": 240, "grid": 260, "tile": 260, "screw": 280, "toothbrush": 280, "capsule": 300, "transistor": 300, "zipper": 300}

const paperMostEpochs = 300

// Preset returns the settings of a protocol for a category, DefaultConfig's where it says nothing. PresetPaper is what the
// released code does: its epochs per category, batches of 16 whose gradients are summed in pairs, constant learning rates of
// 0.001 and 0.005, L_SSOT of the whole batch, one noise field per run, all good images trained on, and the epoch that is best on the
// test set. An empty name is DefaultConfig; any other is ErrConfig by Config.Validate, as its Arch is empty.
func Preset(name, category string) Config {
	c := DefaultConfig()
	switch {
	case name == "":
	case !slices.Contains(Presets(), name):
		c.Arch = ""
	default:
		c.Epochs = paperMostEpochs
		if n, known := paperEpochs[category]; known {
			c.Epochs = n
		}
		c.Updates, c.Batch, c.Accumulate, c.Select, c.Precision = 0, 16, 2, SelectBestOnTest, string(torch.FP32)
		c.RateProjection, c.RateDistill, c.Schedule, c.Average, c.Clip = 0.001, 0.005, ScheduleConstant, 0, 0
		c.Project, c.SSOT, c.NoiseReleased, c.Calibration = ProjectAll, "batch", true, 0
		c.Defects, c.Denoise, c.Light, c.EasyCut, c.EasyBelow, c.Equalise, c.Score = 0, 0, 0, 0, 0, false, ScoreReleased
	}
	return c
}
