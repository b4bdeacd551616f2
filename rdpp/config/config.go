// Package config has the settings of a training as they travel: in model files, checkpoints, metrics.json and flags. It is the
// one place that knows all methods.
package config

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	"rdpp/rdpp/cfa"
	"rdpp/rdpp/csflow"
	"rdpp/rdpp/dataset"
	"rdpp/rdpp/fastflow"
	"rdpp/rdpp/framing"
	"rdpp/rdpp/method"
	"rdpp/rdpp/patchcore"
	"rdpp/rdpp/reverse"
	"rdpp/rdpp/setting"
	"rdpp/torch"
)

// Config holds every choice that changes a training's result. It travels as JSON in the model file. Start from
// Default: zero values are not replaced. A method reads the settings that all have, and its own.
type Config struct {
	method.Settings
	framing.View         // what of pictures is looked at; files of whole pictures, squashed, do not have it
	reverse.Distillation // of RD++ and RD, in one object with the above
	patchcore.Memory     // of PatchCore; files of the others do not have them
	fastflow.Flows       // of FastFlow, likewise
	csflow.CrossFlow     // of CSFlow, likewise
	cfa.Spheres          // of CFA, likewise
}

// table of the methods: their names, what of a Config is theirs alone, by default and as released, and how settings become
// one. A method's settings are a part that Config embeds.
var table = []struct {
	name               string
	standard, released any
	late               bool // files of the others do not have its settings
	make               func(c *Config) method.Method
}{
	{reverse.RDPP, reverse.DefaultDistillation(), reverse.ReleasedDistillation(), false, reversed},
	{reverse.RD, reverse.DefaultDistillation(), reverse.ReleasedDistillation(), false, reversed},
	{patchcore.Name, patchcore.DefaultMemory(), patchcore.ReleasedMemory(), true, func(c *Config) method.Method { return patchcore.New(c.Settings, c.Memory) }},
	{fastflow.Name, fastflow.DefaultFlows(), fastflow.ReleasedFlows(), true, func(c *Config) method.Method { return fastflow.New(c.Settings, c.Flows) }},
	{csflow.Name, csflow.DefaultCrossFlow(), csflow.ReleasedCrossFlow(), true, func(c *Config) method.Method { return csflow.New(c.Settings, c.CrossFlow) }},
	{cfa.Name, cfa.DefaultSpheres(), cfa.ReleasedSpheres(), true, func(c *Config) method.Method { return cfa.New(c.Settings, c.Spheres) }},
}

func reversed(c *Config) method.Method { return reverse.New(c.Settings, c.Distillation) }

// set replaces the part of c that has own's type.
func (c *Config) set(own any) {
	parts := reflect.ValueOf(c).Elem()
	for i := range parts.NumField() {
		if parts.Field(i).Type() == reflect.TypeOf(own) {
			parts.Field(i).Set(reflect.ValueOf(own))
		}
	}
}

// Owners lists the methods that a setting, by its name in JSON, plays a part in; none where it does in all, or there is no such
// setting. A field of a method's own settings that another method of the same package does without says so by its tag without.
func Owners(setting string) (names []string) {
	for _, m := range table {
		for _, field := range reflect.VisibleFields(reflect.TypeOf(m.standard)) {
			if name, _, _ := strings.Cut(field.Tag.Get("json"), ","); name == setting && field.Tag.Get("without") != m.name {
				names = append(names, m.name)
			}
		}
	}
	return names
}

// Methods lists the names of the methods, as Config.Method has them.
func Methods() (names []string) {
	for _, m := range table {
		names = append(names, m.name)
	}
	return names
}

// Default returns the settings of a training of some minutes with the first of the methods.
func Default() Config {
	c := Config{Settings: method.Settings{
		Arch: "wide_resnet50_2", Method: table[0].name, ImageSize: 256,
		Mean: dataset.ImageNet.Mean, Std: dataset.ImageNet.Std,
		Updates: 1900, Epochs: 100, Batch: 4, Select: method.SelectLast, Precision: method.PrecisionAuto, Seed: 1,
		MapSigma:    4,
		Calibration: 0.1, FalseAlarm: 0.01,
	}}
	for _, m := range table {
		c.set(m.standard)
	}
	return c
}

// PresetPaper names the released protocol.
const PresetPaper = "paper"

// Presets lists what Preset takes.
func Presets() []string { return []string{PresetPaper} }

// paperEpochs are the released code's, by the category's folder. It says nothing of others, which get its most.
var paperEpochs = map[string]int{"carpet": 10, "leather": 10, "wood": 100, "hazelnut": 160, "metal_nut": 160, "pill": 200, "bottle": 200,
	"cable": 240, "grid": 260, "tile": 260, "screw": 280, "toothbrush": 280, "capsule": 300, "transistor": 300, "zipper": 300}

const paperMostEpochs = 300

// Preset returns the settings of a protocol for a category, Default's where it says nothing. PresetPaper is what the
// released code does: its epochs per category, batches of 16, the settings of reverse.ReleasedDistillation, all good images
// trained on, and the epoch that is best on the test set. An empty name is Default; any other is setting.ErrValue by
// Config.Validate, as its Arch is empty.
func Preset(name, category string) Config {
	c := Default()
	switch {
	case name == "":
	case !slices.Contains(Presets(), name):
		c.Arch = ""
	default:
		c.Epochs = paperMostEpochs
		if n, known := paperEpochs[category]; known {
			c.Epochs = n
		}
		c.Updates, c.Batch, c.Select, c.Precision, c.Calibration = 0, 16, method.SelectBestOnTest, "fp32", 0
		for _, m := range table {
			c.set(m.released)
		}
	}
	return c
}

// PresetOf returns the settings of a protocol for a category with a method, which may have defaults of its own for settings that
// all have. With an empty name they are Default's otherwise. An unknown method is refused by Validate.
func PresetOf(name, category, method string) Config {
	c := Preset(name, category)
	c.Method = method
	c.usual(name != "")
	return c
}

// usual gives c the method's own defaults.
func (c *Config) usual(released bool) {
	if m, has := c.Learned().(method.Usual); has {
		m.Usual(&c.Settings, released)
	}
}

// Learned is the method that the settings say, which need not be valid; nil where there is none of the name.
func (c *Config) Learned() method.Method {
	for _, m := range table {
		if m.name == c.Method {
			return m.make(c)
		}
	}
	return nil
}

// Fixed lists the settings of all methods that this one takes but a few values of.
func (c *Config) Fixed() []method.Fixed {
	if m, choosy := c.Learned().(method.Choosy); choosy {
		return m.Fixed()
	}
	return nil
}

// Validate says which value cannot be, by a setting.Error.
func (c *Config) Validate() error {
	if err := c.Settings.Check(); err != nil {
		return err
	}
	if err := c.View.Check(); err != nil {
		return err
	}
	m := c.Learned()
	if m == nil {
		return setting.Refuse("method", c.Method, "use %s", strings.Join(Methods(), " or "))
	}
	if err := c.checkArch(m); err != nil {
		return err
	}
	if err := c.checkTiled(); err != nil {
		return err
	}
	if c.View.Masked() {
		if _, err := method.TopOf(m); err != nil {
			return err
		}
	}
	return m.Check()
}

// checkArch refuses a backbone whose layers the method does not know.
func (c *Config) checkArch(m method.Method) error {
	if _, any := m.(method.Farsighted); any || slices.Contains(torch.Architectures(), c.Arch) {
		return nil
	}
	var takers []string
	for _, other := range table {
		if _, any := other.make(c).(method.Farsighted); any {
			takers = append(takers, other.name)
		}
	}
	return setting.Refuse("arch", c.Arch, "%s reads the layers of a ResNet: use one of %v, or {method} %s", c.Method, torch.Architectures(),
		strings.Join(takers, " or "))
}

// checkTiled refuses what tiles do not go with: they are cut of whole images as these lie, at a scale of their own.
func (c *Config) checkTiled() error {
	if !c.Tiled() {
		return nil
	}
	var side any = c.Tile
	if c.Tile == method.TileAuto {
		side = "auto"
	}
	for _, other := range []struct {
		field string
		given bool
	}{{"fit", !c.Fit.IsZero()}, {"roi", c.ROI != framing.Box{}}, {"roi_mask", c.ROIMask != ""}, {"ignore_mask", c.Ignore != ""},
		{"align", c.Align.On()},
		{"augment_shift", c.AugmentShift != 0}, {"augment_rotate", c.AugmentRotate != 0}, {"augment_scale", c.AugmentScale != 0}} {
		if other.given {
			return setting.Refuse("tile", side, "tiles are cut of whole images, as these lie, without {%s}: leave one of the two out", other.field)
		}
	}
	return nil
}

// Complete fills in what files of before a setting was there lack.
func (c *Config) Complete() {
	c.Settings.Complete()
	c.Distillation.Complete()
	c.Spheres.Complete()
	for _, m := range table {
		if m.late && m.name != c.Method {
			c.set(m.standard)
		}
	}
}

// MarshalJSON leaves the settings of later methods out of others' objects, as files of before they were there have none.
func (c Config) MarshalJSON() ([]byte, error) {
	for _, m := range table {
		if m.late && m.name != c.Method {
			c.set(reflect.Zero(reflect.TypeOf(m.standard)).Interface())
		}
	}
	type plain Config
	return json.Marshal(plain(c))
}

// PredictionBytes estimates the memory that a model takes which judges so many images at once. fileBytes is the size of the
// model's file. It is rather too high than too low; 0 where there is no such method.
func (c *Config) PredictionBytes(fileBytes int64, images int) int64 {
	m := c.Learned()
	if m == nil {
		return 0
	}
	return m.PredictionBytes(fileBytes, images)
}
