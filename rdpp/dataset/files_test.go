package dataset

import "testing"

func TestIsMaskFolder(t *testing.T) {
	for name, want := range map[string]bool{
		"MASK": true, "masks": true, "mask_dir": true, "Ground Truth": true, "gt": true, "labels": true,
		"defect_masks": true, "Binary-Mask": true, "masks.png": true, "SegmentationMask": true, "gt_masks": true, "Masken": true,
		"defect": false, "bad": false, "png": false, "solder_mask": false, "bad_label": false, "masked": false, "unmasked": false,
	} {
		if got := isMaskFolder(name); got != want {
			t.Errorf("%s: got %v, want %v", name, got, want)
		}
	}
}
