package command

import "strings"

// meant says which of the names a word that is none of them may be, "" if it is like none: the one that the fewest
// characters tell from it, or that it begins.
func meant(word string, names []string) string {
	best, least := "", 0
	for _, name := range names {
		d := distance(word, name)
		if strings.HasPrefix(name, word) && len(strings.TrimLeft(word, "-")) > 1 {
			d = 1
		}
		if letters := len(strings.TrimLeft(name, "-")); d <= max(1, letters/3) && (best == "" || d < least) {
			best, least = name, d
		}
	}
	if best == "" {
		return ""
	}
	return "; did you mean " + best + "?"
}

// distance is how many characters have to be put in, taken out, replaced or swapped with their neighbours to make b of a, none
// of them twice (optimal string alignment).
func distance(a, b string) int {
	from, to := []rune(a), []rune(b)
	var before, last []int // rows for one and two characters of a fewer
	row := make([]int, len(to)+1)
	for j := range row {
		row[j] = j
	}
	for i := range from {
		before, last, row = last, row, make([]int, len(to)+1)
		row[0] = i + 1
		for j := range to {
			cost := 1
			if from[i] == to[j] {
				cost = 0
			}
			row[j+1] = min(last[j+1]+1, row[j]+1, last[j]+cost)
			if i > 0 && j > 0 && from[i] == to[j-1] && from[i-1] == to[j] {
				row[j+1] = min(row[j+1], before[j-1]+1)
			}
		}
	}
	return row[len(to)]
}
