package rdpp

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"rdpp/torch"
)

// PredictionBytes estimates the memory that a model takes which judges so many images at once: its weights and the forms of
// them that are made for speed, and what the networks compute. fileBytes is the size of the model's file. It is rather too high
// than too low.
func (c *Config) PredictionBytes(fileBytes int64, images int) int64 {
	perPixel := int64(300) // of the network input; measured on the CPU in float32
	if c.Arch != "resnet18" && c.Arch != "resnet34" {
		perPixel = 700 // four times the channels
	}
	const program = 256 << 20
	side := int64(c.ImageSize)
	return program + 4*fileBytes + int64(images)*side*side*perPixel
}

// checkMemory refuses a model whose images would take more than limit bytes, or where that is 0, than this machine has.
func (c *Config) checkMemory(fileBytes, limit int64, device torch.Device) error {
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
