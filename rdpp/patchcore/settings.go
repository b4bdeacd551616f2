// Package patchcore is PatchCore (Roth et al., "Towards Total Recall in Industrial Anomaly Detection", CVPR 2022). A teacher
// sees good images; what it sees around every position is a patch, and few patches that stand for all are the bank. How far
// an image's patches are from the bank is its map. Nothing is learned by gradients, and one pass over the images is enough.
//
// Dimension letters: B batch, S side of the square network input, D dimensions of a patch.
package patchcore

import (
	"rdpp/rdpp/setting"
)

// Name is the method's, as method.Settings has it.
const Name = "patchcore"

// Memory are the settings that PatchCore has beside those of all methods. Start from DefaultMemory: zero values are not
// replaced.
type Memory struct {
	Coreset           float64 `json:"coreset,omitzero"`            // share of the training images' patches that the bank keeps, above 0 to 1
	CoresetDimensions int     `json:"coreset_dimensions,omitzero"` // to which patches of more are projected at random for choosing them; 0: none are
	CoresetStarts     int     `json:"coreset_starts,omitzero"`     // random patches, from which the first one chosen is the farthest on average
	PatchDimensions   int     `json:"patch_dimensions,omitzero"`   // D, a multiple of 2, of the released code's averages; 0: the mean of each channel over 3 x 3 positions
	PatchScore        string  `json:"patch_score,omitzero"`        // ScoreMap or ScorePatch
	Neighbours        int     `json:"neighbours,omitzero"`         // b of the paper's Eq. 7, which weights an image's score; 1: it is not weighted
	DistanceMiB       int     `json:"distance_mib,omitzero"`       // memory for distances to the bank at a time, 1 to 65536 MiB; it changes no result
}

// What an image's score is.
const (
	ScoreMap   = "map"   // the largest value of the smoothed map
	ScorePatch = "patch" // the distance of the patch that is farthest from the bank, as published
)

// DefaultMemory is what did best, of what was tried, on real parts (BENCHMARKS.md): 1 % of the patches, as published. The
// maximum of the smoothed map tells defective parts from good ones better than a single patch does, and weighting by
// neighbours no better; the means of all channels better than the released code's averages. Patches of resnet18 have 384
// dimensions, and are chosen by all of them.
func DefaultMemory() Memory {
	return Memory{Coreset: 0.01, CoresetDimensions: 384, CoresetStarts: 10, PatchScore: ScoreMap, Neighbours: 1, DistanceMiB: 64}
}

// ReleasedMemory is what the paper and its released code do, which weights scores in the paper alone.
func ReleasedMemory() Memory {
	c := DefaultMemory()
	c.CoresetDimensions, c.PatchDimensions, c.PatchScore, c.Neighbours = 128, 1024, ScorePatch, 9
	return c
}

// The largest values that Check lets pass: above use, low enough that no size overflows.
const (
	maxDimensions  = 1 << 13
	maxStarts      = 1 << 16
	maxNeighbours  = 1 << 10
	maxDistanceMiB = 1 << 16
)

// Check says which value cannot be, by a setting.Error.
func (c *Memory) Check() error {
	switch {
	case !(c.Coreset > 0 && c.Coreset <= 1):
		return setting.Refuse("coreset", c.Coreset, "use a share of the patches, above 0 to 1")
	case c.CoresetDimensions < 0 || c.CoresetDimensions > maxDimensions:
		return setting.Refuse("coreset_dimensions", c.CoresetDimensions, "use 1 to %d, or 0 for no projection", maxDimensions)
	case c.CoresetStarts < 1 || c.CoresetStarts > maxStarts:
		return setting.Refuse("coreset_starts", c.CoresetStarts, "use 1 to %d", maxStarts)
	case c.PatchDimensions < 0 || c.PatchDimensions > maxDimensions || c.PatchDimensions%2 != 0:
		return setting.Refuse("patch_dimensions", c.PatchDimensions, "use a multiple of 2 up to %d, or 0 for those of the channels", maxDimensions)
	case c.PatchScore != ScoreMap && c.PatchScore != ScorePatch:
		return setting.Refuse("patch_score", c.PatchScore, "use %s or %s", ScoreMap, ScorePatch)
	case c.Neighbours < 1 || c.Neighbours > maxNeighbours:
		return setting.Refuse("neighbours", c.Neighbours, "use 1 to %d", maxNeighbours)
	case c.DistanceMiB < 1 || c.DistanceMiB > maxDistanceMiB:
		return setting.Refuse("distance_mib", c.DistanceMiB, "use 1 to %d", maxDistanceMiB)
	}
	return nil
}
