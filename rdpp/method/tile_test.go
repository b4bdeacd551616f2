package method_test

import (
	"errors"
	"testing"

	"rdpp/rdpp/config"
	"rdpp/rdpp/method"
	"rdpp/rdpp/setting"
)

// auto takes the input's own size for the smallest defects, none for large ones, and between them what makes a defect 8 pixels
// wide; a stride that is not given is three quarters of the side.
func TestSettleTile(t *testing.T) {
	for _, c := range []struct {
		tile, stride, defect, longest int
		wantTile, wantStride          int
		refused                       bool
	}{
		{0, 0, 0, 5000, 0, 0, false},
		{512, 0, 0, 5000, 512, 384, false},
		{512, 448, 0, 512, 512, 448, false},
		{512, 0, 0, 511, 0, 0, true},
		{method.TileAuto, 0, 1, 5000, 256, 192, false},
		{method.TileAuto, 0, 8, 5000, 256, 192, false},
		{method.TileAuto, 0, 20, 5000, 640, 480, false},
		{method.TileAuto, 0, 20, 641, 640, 480, false},
		{method.TileAuto, 0, 20, 640, 0, 0, false},
		{method.TileAuto, 0, 20, 200, 0, 0, false},
		{method.TileAuto, 0, method.MaxTile, 1 << 20, 0, 0, true},
	} {
		s := config.Default().Settings
		s.Tile, s.TileStride, s.SmallestDefect = c.tile, c.stride, c.defect
		err := s.SettleTile(c.longest)
		if c.refused {
			if !errors.Is(err, setting.ErrValue) {
				t.Errorf("%+v: got %v, want that it is refused", c, err)
			}
			continue
		}
		if err != nil || s.Tile != c.wantTile || s.TileStride != c.wantStride {
			t.Errorf("%+v: got %d by %d, %v", c, s.Tile, s.TileStride, err)
		}
	}
}
