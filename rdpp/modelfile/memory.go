package modelfile

import (
	"fmt"

	"rdpp/rdpp/allowance"
	"rdpp/rdpp/config"
	"rdpp/torch"
)

// checkMemory refuses a model whose images would take more than limit bytes, or where that is 0, than allowance.Memory.
func checkMemory(c *config.Config, fileBytes, limit int64, device torch.Device) error {
	if limit == 0 && device != torch.CPU {
		return nil // the device says so itself
	}
	of := "allowed"
	if limit == 0 {
		limit, of = allowance.Memory(), "at hand"
	}
	if need := c.PredictionBytes(fileBytes, 1); need > limit {
		return fmt.Errorf("an image of %d x %d pixels would take some %d MiB of memory, %d are %s; train with a smaller image size, or use a larger machine",
			c.ImageSize, c.ImageSize, need>>20, limit>>20, of)
	}
	return nil
}
