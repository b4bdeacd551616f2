package bench

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"rdpp/rdpp"
	"rdpp/rdpp/allowance"
	"rdpp/torch"
)

// Machine is what figures depend on beside model and device. What the system does not tell is left empty.
type Machine struct {
	CPU      string   `json:"cpu"`          // its name
	Cores    int      `json:"cores"`        // physical ones; 0: not known
	CPUs     int      `json:"logical_cpus"` // that this process may use
	Threads  int      `json:"threads"`      // of one operation on the CPU
	GPUs     []string `json:"gpus"`         // names of NVIDIA's, never null
	Software string   `json:"software"`     // this program and its version
	Libtorch string   `json:"libtorch"`     // version
	System   string   `json:"system"`       // operating system and architecture, as Go names them
}

// ThisMachine asks the system, and libtorch for its version. threads is what operations use.
func ThisMachine(threads int) (Machine, error) {
	m := Machine{CPUs: allowance.CPUs(), Threads: threads, GPUs: []string{}, Software: "rdpp " + rdpp.Version,
		System: runtime.GOOS + "/" + runtime.GOARCH}
	var err error
	if m.Libtorch, err = torch.Version(); err != nil {
		return Machine{}, err
	}
	if info, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU, m.Cores = field(string(info), "model name"), cores(string(info))
	}
	files, _ := filepath.Glob("/proc/driver/nvidia/gpus/*/information") // fails on a wrong pattern alone
	for _, file := range files {
		if info, err := os.ReadFile(file); err == nil {
			m.GPUs = append(m.GPUs, field(string(info), "Model"))
		}
	}
	return m, nil
}

// field returns the value of the first line "name : value", "" where there is none.
func field(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, found := strings.Cut(line, ":"); found && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// cores counts the physical cores in the text of /proc/cpuinfo, which has a paragraph per logical one; 0 where it does
// not name them, as on ARM.
func cores(cpuinfo string) int {
	seen := map[[2]string]bool{}
	for paragraph := range strings.SplitSeq(cpuinfo, "\n\n") {
		if core := field(paragraph, "core id"); core != "" {
			seen[[2]string{field(paragraph, "physical id"), core}] = true
		}
	}
	return len(seen)
}
