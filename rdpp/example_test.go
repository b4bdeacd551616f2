package rdpp_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"rdpp/rdpp"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/sample"
	"rdpp/torch"
)

// Learn from photographs of good parts, then look at another one. The settings are the smallest there are; leave them
// at their defaults, and give a teacher's weight file, for parts that matter.
func Example() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := sample.Write(dir, &sample.Options{Category: "part", Size: 64, Train: 2, TestGood: 1, TestDefect: 1}); err != nil {
		log.Fatal(err)
	}

	set, err := dataset.Open(filepath.Join(dir, "part"), nil)
	if err != nil {
		log.Fatal(err)
	}
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize, config.Batch, config.Epochs = "resnet18", 64, 2, 2
	config.Precision = "fp32"
	summary, err := rdpp.Train(context.Background(), config, set,
		rdpp.TrainOptions{Out: filepath.Join(dir, "run"), Teacher: rdpp.TeacherRandom})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(summary.Category, summary.TrainImages, "training images,", summary.Good+summary.Defective, "test images")

	detector, err := rdpp.OpenDetector(summary.ModelFile, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer detector.Close()
	result, _, err := detector.DetectFile(set.Train[0].Path)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Width, "x", result.Height, "pixels, anomalous:", result.Anomalous)
	// Output:
	// part 2 training images, 5 test images
	// 64 x 64 pixels, anomalous: false
}

// Ask a model about a photograph. Here its weights are random, so that only the sizes mean anything.
func ExampleDetector() {
	modelFile, photograph, err := exampleFiles()
	if err != nil {
		log.Fatal(err)
	}

	detector, err := rdpp.OpenDetector(modelFile, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer detector.Close()
	result, _, err := detector.DetectFile(photograph)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(result.Width, "x", result.Height, "pixels, a map of", len(result.Map), "values, score above 0:", result.Score > 0)
	// Output:
	// 64 x 64 pixels, a map of 1024 values, score above 0: true
}

// exampleFiles writes a model with random weights and finds a photograph.
func exampleFiles() (modelFile, photograph string, err error) {
	set, err := dataset.Open(dataDir, nil)
	if err != nil {
		return "", "", err
	}
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 32
	model, err := rdpp.NewModel(config, torch.CPU)
	if err != nil {
		return "", "", err
	}
	defer model.Close()
	modelFile = filepath.Join(scratch, "example.safetensors")
	return modelFile, set.Test[0].Path, model.Save(modelFile)
}

func ExampleConfig_Validate() {
	config := rdpp.DefaultConfig()
	config.ImageSize = 250
	fmt.Println(config.Validate())
	// Output:
	// rdpp: image_size is 250; use a multiple of 32 from 32 to 2048
}

// Write a model as ONNX, for a program without rdpp. It reads RGB pixels and says what a Detector would.
func ExampleModel_Export() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	config := rdpp.DefaultConfig()
	config.Arch, config.ImageSize = "resnet18", 64
	model, err := rdpp.NewModel(config, torch.CPU) // or LoadModel
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()

	file := filepath.Join(dir, "model.onnx")
	err = model.Export(context.Background(), file, &rdpp.ExportOptions{Format: rdpp.FormatONNX})
	if err != nil {
		log.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Size()/1e6, "MB")
	// Output:
	// 75 MB
}
