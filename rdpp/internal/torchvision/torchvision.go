// Package torchvision lists the weight files that torchvision has for teachers.
package torchvision

// File is one of them.
type File struct{ Name, SHA256 string }

// Unverified are files, by architecture, that begin with the digits in their names, and whose SHA-256 is not known whole.
var Unverified = map[string]string{"efficientnet_b5": "efficientnet_b5_lukemelas-1a07897c.pth"}

// Files are torchvision's IMAGENET1K_V1 weight files and their SHA-256, which the digits in the names begin, by architecture.
// Tests put others in their place.
var Files = map[string]File{
	"resnet18":        {"resnet18-f37072fd.pth", "f37072fd47e89c5e827621c5baffa7500819f7896bbacec160b1a16c560e07ec"},
	"resnet34":        {"resnet34-b627a593.pth", "b627a593bcbe140c234610266fe4f8ae95ea42fc881d091c9b6052e6b1d0590f"},
	"resnet50":        {"resnet50-0676ba61.pth", "0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a"},
	"wide_resnet50_2": {"wide_resnet50_2-95faca4d.pth", "95faca4d11227dddf8633dbb5ff6c8a9003c1aa5b8945c73834b8007b10950b8"},
}
