package reproduce_test

import (
	"fmt"
	"strings"

	"rdpp/rdpp/anomaly"
	"rdpp/rdpp/reproduce"
)

func Example() {
	plan, err := reproduce.NewPlan(&reproduce.Options{Tables: []int{5}, Teacher: "random", Epochs: 2})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range plan.Trainings {
		fmt.Println(t)
		fmt.Println("  train", strings.Join(plan.Args(t), " "))
	}
	auroc := 0.875 // as metrics.json has it
	result := &reproduce.Result{Metrics: anomaly.Metrics{ImageAUROC: &auroc}, Teacher: reproduce.Teacher{Origin: "random"}}
	outcomes := map[reproduce.Training]reproduce.Outcome{plan.Trainings[1]: {Result: result}}
	table := plan.Compare(outcomes).Tables[0]
	fmt.Println("not comparable:", strings.Join(table.NotComparable, "; "))
	for _, row := range table.Rows {
		cell := row.Cells[0]
		switch {
		case cell.Ours != nil:
			fmt.Printf("%s: paper %s, ours %.2f, difference %+.2f\n", row.Label, cell.Paper, *cell.Ours, *cell.Difference)
		case cell.Note > 0:
			fmt.Printf("%s: paper %s, ours missing: %s\n", row.Label, cell.Paper, table.Reasons[cell.Note-1])
		}
	}
	// Output:
	// oct oct, rd, wide_resnet50_2, seed 1
	//   train --preset paper --arch wide_resnet50_2 --method rd --teacher random --seed 1 --epochs 2
	// oct oct, rd++, wide_resnet50_2, noise 0.2, seed 1
	//   train --preset paper --arch wide_resnet50_2 --method rd++ --teacher random --seed 1 --noise 0.2 --epochs 2
	// not comparable: the teacher of wide_resnet50_2 is random instead of torchvision's, trained on ImageNet; every training has 2 epochs instead of the paper's number for its category; not every training took the epoch that was best on the test images, as the released code does; results are complete for 0 of 1 category
	// RD: paper 99.36, ours missing: not run
	// RD++: paper 99.73, ours 87.50, difference -12.23
}
