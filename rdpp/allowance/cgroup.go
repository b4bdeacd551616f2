package allowance

import (
	"io/fs"
	"math"
	"path"
	"slices"
	"strconv"
	"strings"
)

// limits are the smallest of the control groups that a process is in, from its own to the outermost one that it can see.
type limits struct {
	cpus   int64 // whole processors, rounded up; math.MaxInt64: no limit
	memory int64 // bytes; math.MaxInt64: no limit
}

// read finds the limits of this process. What is missing or makes no sense limits nothing: control groups may not be
// mounted, or differ from one kernel to the next.
func read(root fs.FS) limits {
	l := limits{cpus: math.MaxInt64, memory: math.MaxInt64}
	groups, mounts := groupsOf(root), mountsOf(root)
	for _, m := range mounts {
		for _, g := range groups {
			if g.isOf(m) {
				for _, folder := range m.folders(g.path) {
					l.lower(root, m, folder)
				}
			}
		}
	}
	return l
}

// lower takes a group's own limits into account.
func (l *limits) lower(root fs.FS, m mount, folder string) {
	file := func(name string) []string {
		text, err := fs.ReadFile(root, path.Join(folder, name))
		if err != nil {
			return nil
		}
		return strings.Fields(string(text))
	}
	if m.unified {
		if f := file("cpu.max"); len(f) == 2 {
			l.lowerCPUs(f[:1], f[1:])
		} else { // without a period it is 100 ms
			l.lowerCPUs(f, []string{"100000"})
		}
		l.lowerMemory(file("memory.max"))
		l.lowerMemory(file("memory.high")) // above which the kernel slows the group down
		return
	}
	if slices.Contains(m.controllers, "cpu") {
		l.lowerCPUs(file("cpu.cfs_quota_us"), file("cpu.cfs_period_us"))
	}
	if slices.Contains(m.controllers, "memory") {
		l.lowerMemory(file("memory.limit_in_bytes"))
	}
}

func (l *limits) lowerCPUs(quota, period []string) {
	q, p := number(quota), number(period)
	if q <= 0 || p <= 0 {
		return
	}
	n := q / p
	if q%p != 0 {
		n++
	}
	l.cpus = min(l.cpus, n)
}

func (l *limits) lowerMemory(bytes []string) {
	if n := number(bytes); n > 0 {
		l.memory = min(l.memory, n)
	}
}

// number is a file's only word; 0, which is no limit, where it is another one, such as "max".
func number(words []string) int64 {
	if len(words) != 1 {
		return 0
	}
	n, err := strconv.ParseInt(words[0], 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// group is a control group of this process, as /proc/self/cgroup names it.
type group struct {
	unified     bool // of version 2
	controllers []string
	path        string // in its hierarchy
}

// groupsOf reads lines such as "4:cpu,cpuacct:/docker/1f" and, of version 2, "0::/docker/1f".
func groupsOf(root fs.FS) (groups []group) {
	for _, line := range lines(root, "proc/self/cgroup") {
		parts := strings.SplitN(line, ":", 3)
		if len(parts) == 3 {
			groups = append(groups, group{parts[0] == "0" && parts[1] == "", strings.Split(parts[1], ","), parts[2]})
		}
	}
	return groups
}

// isOf says whether the group is in the hierarchy that is mounted there.
func (g *group) isOf(m mount) bool {
	if g.unified || m.unified {
		return g.unified && m.unified
	}
	return slices.ContainsFunc(g.controllers, func(c string) bool { return slices.Contains(m.controllers, c) })
}

// mount is a mounted hierarchy of control groups.
type mount struct {
	unified     bool     // version 2
	controllers []string // of version 1, among other options
	top         string   // the group that is seen at the folder
	folder      string   // without the leading slash
}

// mountsOf reads lines such as "35 31 0:32 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory".
func mountsOf(root fs.FS) (mounts []mount) {
	for _, line := range lines(root, "proc/self/mountinfo") {
		place, kind, found := strings.Cut(line, " - ")
		p, k := strings.Fields(place), strings.Fields(kind)
		if !found || len(p) < 5 || len(k) < 3 || (k[0] != "cgroup" && k[0] != "cgroup2") {
			continue
		}
		m := mount{k[0] == "cgroup2", strings.Split(k[2], ","), unescape(p[3]), strings.TrimPrefix(unescape(p[4]), "/")}
		if fs.ValidPath(m.folder) {
			mounts = append(mounts, m)
		}
	}
	return mounts
}

// folders are those of a group and of all that it is in, as far as they are mounted. A group that is not below what is
// mounted has been named from elsewhere, as by a container that shares its host's /proc: then the top has its limits.
func (m *mount) folders(group string) []string {
	below, inside := strings.CutPrefix(path.Clean("/"+group), strings.TrimSuffix(path.Clean("/"+m.top), "/"))
	if !inside || (below != "" && below[0] != '/') {
		return []string{m.folder}
	}
	folders := []string{m.folder}
	for name := range strings.SplitSeq(below, "/") {
		if name != "" {
			folders = append(folders, path.Join(folders[len(folders)-1], name))
		}
	}
	return folders
}

// unescape undoes how /proc/self/mountinfo writes spaces and their like.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// lines are those of a file; none where it cannot be read.
func lines(root fs.FS, name string) []string {
	text, err := fs.ReadFile(root, name)
	if err != nil {
		return nil
	}
	return strings.Split(string(text), "\n")
}
