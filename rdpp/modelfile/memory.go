package modelfile

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rdpp/rdpp/config"
	"rdpp/torch"
)

// checkMemory refuses a model whose images would take more than limit bytes, or where that is 0, than this machine has.
func checkMemory(c *config.Config, fileBytes, limit int64, device torch.Device) error {
	if limit == 0 && device != torch.CPU {
		return nil // the device says so itself
	}
	of := "allowed"
	if limit == 0 {
		limit, of = machineMemory(), "in this machine"
	}
	if need := c.PredictionBytes(fileBytes, 1); need > limit {
		return fmt.Errorf("an image of %d x %d pixels would take some %d MiB of memory, %d are %s; train with a smaller image size, or use a larger machine",
			c.ImageSize, c.ImageSize, need>>20, limit>>20, of)
	}
	return nil
}

// machineMemory is what this process may have of the machine's memory.
func machineMemory() int64 {
	var info unix.Sysinfo_t
	total := int64(1) << 62
	if unix.Sysinfo(&info) == nil {
		total = int64(info.Totalram) * int64(info.Unit)
	}
	text, err := os.ReadFile("/sys/fs/cgroup/memory.max") // of a container
	if err != nil {
		return total
	}
	if most, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64); err == nil {
		return min(total, most)
	}
	return total
}
