// Package inference is the Open Inference Protocol V2 over gRPC, generated from open_inference.proto, which clients in other
// languages are generated from too.
//
// To generate it anew: protoc, and protoc-gen-go and protoc-gen-go-grpc of the versions that the files name.
package inference

//go:generate protoc --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative open_inference.proto
