package server_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection/grpc_reflection_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"rdpp/infer/server"
	"rdpp/infer/server/inference"
	"rdpp/rdpp/history"
)

// dial serves v's gRPC until the test ends, and returns a connection of a client's to it.
func (v *service) dial(t testing.TB) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- v.ServeGRPC(ctx, l, "", "") }()
	connection, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(1<<30)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		connection.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return connection
}

// jsonOf is a value in JSON.
func jsonOf(t testing.TB, value any) string {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// fileInput is an input of image files in raw bytes.
func fileInput(files ...[]byte) *inference.ModelInferRequest {
	var raw []byte
	for _, file := range files {
		raw = append(raw, sized(file)...)
	}
	return &inference.ModelInferRequest{ModelName: "part", RawInputContents: [][]byte{raw},
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "BYTES", Shape: []int64{int64(len(files))}}}}
}

// The same picture gives the same score by every way of sending it, which is that of HTTP.
func TestGRPCInputs(t *testing.T) {
	v := start(t, server.Options{})
	client := inference.NewGRPCInferenceServiceClient(v.dial(t))
	img := pixelsOf(t, pictures[0])
	shape := []int64{1, int64(img.H), int64(img.W), 3}
	numbers := make([]uint32, len(img.Pix))
	for i, p := range img.Pix {
		numbers[i] = uint32(p)
	}
	input := func(datatype string, shape []int64, contents *inference.InferTensorContents, raw ...[]byte) *inference.ModelInferRequest {
		return &inference.ModelInferRequest{ModelName: "part", Id: "7", RawInputContents: raw,
			Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: datatype, Shape: shape, Contents: contents}}}
	}
	for name, r := range map[string]*inference.ModelInferRequest{
		"raw pixels":             input("UINT8", shape, nil, img.Pix),
		"raw pixels, no batch":   input("UINT8", shape[1:], nil, img.Pix),
		"raw file":               input("BYTES", []int64{1}, nil, sized(pictures[0])),
		"pixels in the contents": input("UINT8", shape, &inference.InferTensorContents{UintContents: numbers}),
		"file in the contents":   input("BYTES", []int64{1}, &inference.InferTensorContents{BytesContents: [][]byte{pictures[0]}}),
	} {
		t.Run(name, func(t *testing.T) {
			got, err := client.ModelInfer(t.Context(), r)
			if err != nil {
				t.Fatal(err)
			}
			if got.ModelName != "part" || got.ModelVersion != "1" || got.Id != "7" || len(got.Outputs) != 3 {
				t.Errorf("got %v, want three outputs of part, version 1, for 7", got)
			}
			score := got.Outputs[0].Contents.GetFp64Contents()
			if len(r.RawInputContents) > 0 {
				if len(got.RawOutputContents) != 3 || got.Outputs[0].Contents != nil {
					t.Fatalf("got %d raw outputs, want 3 and no contents", len(got.RawOutputContents))
				}
				score = []float64{math.Float64frombits(binary.LittleEndian.Uint64(got.RawOutputContents[0]))}
			}
			if got.Outputs[0].Name != "score" || !slices.Equal(score, scores[:1]) {
				t.Errorf("got %s %v, want the score %v", got.Outputs[0].Name, score, scores[0])
			}
		})
	}
}

// Outputs over gRPC are what they are over HTTP, wishes and the map included.
func TestGRPCOutputs(t *testing.T) {
	v := start(t, server.Options{Model: otherFile})
	client := inference.NewGRPCInferenceServiceClient(v.dial(t))
	names := []string{"map", "anomalous", "score", "p_value", "normalised"}
	var outputs []string
	r := &inference.ModelInferRequest{ModelName: "other", ModelVersion: "1",
		Parameters: map[string]*inference.InferParameter{"threshold": {ParameterChoice: &inference.InferParameter_DoubleParam{DoubleParam: 0.25}}},
		Inputs: []*inference.ModelInferRequest_InferInputTensor{{Name: "image", Datatype: "BYTES", Shape: []int64{2},
			Contents: &inference.InferTensorContents{BytesContents: pictures[:2]}}}}
	for _, name := range names {
		r.Outputs = append(r.Outputs, &inference.ModelInferRequest_InferRequestedOutputTensor{Name: name})
		outputs = append(outputs, fmt.Sprintf(`{"name":%q}`, name))
	}
	size := 8 + len(pictures[0]) + len(pictures[1])
	body, length := withTail(fmt.Sprintf(`{"parameters":{"threshold":0.25},"inputs":[{"name":"image","shape":[2],"datatype":"BYTES",
		"parameters":{"binary_data_size":%d}}],"outputs":[%s]}`, size, strings.Join(outputs, ",")), sized(pictures[0]), sized(pictures[1]))
	a := v.ask(t, "POST", "/v2/models/other/infer", body, lengthHeader, length)
	var want inferAnswer
	a.into(t, &want)
	got, err := client.ModelInfer(t.Context(), r)
	if err != nil || len(want.Outputs) != len(names) || len(got.Outputs) != len(names) {
		t.Fatalf("got %v, %v, want %d outputs; HTTP: %s", got, err, len(names), a.body)
	}
	for i, o := range got.Outputs {
		c := o.Contents
		values := map[string]any{"FP64": c.GetFp64Contents(), "FP32": c.GetFp32Contents(), "BOOL": c.GetBoolContents()}[o.Datatype]
		var shape []int
		for _, n := range o.Shape {
			shape = append(shape, int(n))
		}
		if text := jsonOf(t, values); o.Name != want.Outputs[i].Name || o.Datatype != want.Outputs[i].Datatype || !slices.Equal(shape, want.Outputs[i].Shape) ||
			text != string(want.Outputs[i].Data) {
			t.Errorf("output %d: got %s %s %v %.80s, want %s %s %v %.80s", i, o.Name, o.Datatype, shape, text, want.Outputs[i].Name, want.Outputs[i].Datatype,
				want.Outputs[i].Shape, want.Outputs[i].Data)
		}
	}
}

// What is refused over HTTP is refused over gRPC, by the code that its status stands for, and the text is the same.
func TestGRPCFailures(t *testing.T) {
	v := start(t, server.Options{MaxBody: 1 << 20, MaxQueue: 16})
	connection := v.dial(t)
	client := inference.NewGRPCInferenceServiceClient(connection)
	with := func(change func(r *inference.ModelInferRequest)) *inference.ModelInferRequest {
		r := fileInput(pictures[0])
		change(r)
		return r
	}
	for name, c := range map[string]struct {
		request *inference.ModelInferRequest
		want    codes.Code
		text    string
	}{
		"no model":   {with(func(r *inference.ModelInferRequest) { r.ModelName = "nobody" }), codes.NotFound, "nobody"},
		"a version":  {with(func(r *inference.ModelInferRequest) { r.ModelVersion = "7" }), codes.NotFound, "version 7 of part is not there, 1 is"},
		"no picture": {fileInput([]byte("hello")), codes.InvalidArgument, "not an image"},
		"a shape": {with(func(r *inference.ModelInferRequest) {
			r.Inputs[0].Datatype = "UINT8"
			r.Inputs[0].Shape = []int64{1, 3, 2, 2}
		}), codes.InvalidArgument, "shape [1 3 2 2]: pixels must be [H, W, 3] or [B, H, W, 3]"},
		"a datatype":     {with(func(r *inference.ModelInferRequest) { r.Inputs[0].Datatype = "FP32" }), codes.InvalidArgument, `datatype "FP32"`},
		"no input":       {with(func(r *inference.ModelInferRequest) { r.Inputs = nil }), codes.InvalidArgument, `there must be one input, named "image"`},
		"another input":  {with(func(r *inference.ModelInferRequest) { r.Inputs[0].Name = "x" }), codes.InvalidArgument, `there must be one input, named "image"`},
		"two raw inputs": {with(func(r *inference.ModelInferRequest) { r.RawInputContents = append(r.RawInputContents, nil) }), codes.InvalidArgument, "raw_input_contents is there twice"},
		"both": {with(func(r *inference.ModelInferRequest) {
			r.Inputs[0].Contents = &inference.InferTensorContents{BytesContents: pictures[:1]}
		}),
			codes.InvalidArgument, "both contents and raw_input_contents"},
		"floats": {with(func(r *inference.ModelInferRequest) {
			r.RawInputContents = nil
			r.Inputs[0].Contents = &inference.InferTensorContents{Fp32Contents: []float32{1}}
		}), codes.InvalidArgument, "must be bytes_contents"},
		"an output": {with(func(r *inference.ModelInferRequest) {
			r.Outputs = []*inference.ModelInferRequest_InferRequestedOutputTensor{{Name: "class"}}
		}), codes.InvalidArgument, `output "class" is unknown`},
		"a threshold": {with(func(r *inference.ModelInferRequest) {
			r.Parameters = map[string]*inference.InferParameter{"threshold": {ParameterChoice: &inference.InferParameter_StringParam{StringParam: "high"}}}
		}), codes.InvalidArgument, `threshold "high": use a number`},
		"too large":       {fileInput(make([]byte, 1<<20)), codes.ResourceExhausted, "raise --max-body"},
		"too many images": {fileInput(slices.Repeat([][]byte{nil}, 17)...), codes.InvalidArgument, "B being 1 to 16 images"},
	} {
		if _, err := client.ModelInfer(t.Context(), c.request); status.Code(err) != c.want || !strings.Contains(status.Convert(err).Message(), c.text) {
			t.Errorf("%s: got %v, want %v and %q", name, err, c.want, c.text)
		}
	}
	if _, err := client.ModelInfer(t.Context(), fileInput(pictures[0]), grpc.UseCompressor(gzip.Name)); status.Code(err) != codes.Unimplemented {
		t.Errorf("a compressed message: got %v, want Unimplemented", err)
	}
	if err := connection.Invoke(t.Context(), "/inference.GRPCInferenceService/ModelConfig", &inference.ModelReadyRequest{}, &inference.ModelReadyResponse{}); status.Code(err) != codes.Unimplemented {
		t.Errorf("another method: got %v, want Unimplemented", err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := client.ModelInfer(gone, fileInput(pictures[0])); status.Code(err) != codes.Canceled {
		t.Errorf("a client that leaves: got %v, want Canceled", err)
	}
	if _, err := client.ModelInfer(t.Context(), fileInput(pictures[0])); err != nil {
		t.Errorf("afterwards: got %v", err)
	}
	if held := v.metric(t, `rdpp_budget_bytes{kind="used"}`); held != 0 {
		t.Errorf("afterwards %v bytes stay counted", held)
	}
	const counted = `rdpp_requests_total{code="NotFound",method="POST",route="/inference.GRPCInferenceService/ModelInfer"}`
	if got := v.metric(t, counted); got != 2 {
		t.Errorf("got %v calls counted as NotFound, want 2", got)
	}
	size := len("\x00size") + proto.Size(fileInput(pictures[0])) // a byte and four of length come before a message
	if want := fmt.Sprintf(`"bytes_in":%d,`, size); !strings.Contains(v.logs.String(), want) {
		t.Errorf("the log has no call of %s", want)
	}
	if logs := v.logs.String(); !strings.Contains(logs, `"path":"/inference.GRPCInferenceService/ModelInfer","status":"NotFound"`) ||
		!strings.Contains(logs, "version 7 of part is not there, 1 is") {
		t.Errorf("the log has no call that was refused, and why: %s", logs)
	}
}

// What the other methods say, of names and versions too.
func TestGRPCMetadata(t *testing.T) {
	dir := t.TempDir()
	copyFile(t, modelFile, dir+"/größe 1.safetensors")
	v := start(t, server.Options{Model: dir})
	connection := v.dial(t)
	client := inference.NewGRPCInferenceServiceClient(connection)
	if a, err := client.ServerLive(t.Context(), &inference.ServerLiveRequest{}); err != nil || !a.Live {
		t.Errorf("ServerLive: got %v, %v", a, err)
	}
	if a, err := client.ServerReady(t.Context(), &inference.ServerReadyRequest{}); err != nil || !a.Ready {
		t.Errorf("ServerReady: got %v, %v", a, err)
	}
	if a, err := client.ServerMetadata(t.Context(), &inference.ServerMetadataRequest{}); err != nil || a.Name != "rdpp" || a.Version == "" {
		t.Errorf("ServerMetadata: got %v, %v", a, err)
	}
	m, err := client.ModelMetadata(t.Context(), &inference.ModelMetadataRequest{Name: "größe 1"})
	if err != nil || m.Name != "größe 1" || !slices.Equal(m.Versions, []string{"1"}) || len(m.Inputs) != 1 || m.Inputs[0].Name != "image" || len(m.Outputs) != 5 {
		t.Errorf("ModelMetadata: got %v, %v", m, err)
	}
	ready := func(name, version string) (bool, codes.Code) {
		a, err := client.ModelReady(t.Context(), &inference.ModelReadyRequest{Name: name, Version: version})
		return a.GetReady(), status.Code(err)
	}
	for _, c := range []struct {
		name, version string
		ready         bool
		code          codes.Code
	}{{"größe 1", "", true, codes.OK}, {"größe 1", "1", true, codes.OK}, {"größe 1", "2", false, codes.NotFound}, {"other", "", false, codes.NotFound}} {
		if got, code := ready(c.name, c.version); got != c.ready || code != c.code {
			t.Errorf("ModelReady of %s, version %q: got %v, %v, want %v, %v", c.name, c.version, got, code, c.ready, c.code)
		}
	}
	if a := v.ask(t, "POST", "/v2/repository/models/gr%C3%B6%C3%9Fe%201/unload", nil); a.status != http.StatusOK {
		t.Fatalf("got status %d, %s", a.status, a.body)
	}
	if got, code := ready("größe 1", ""); got || code != codes.OK {
		t.Errorf("ModelReady of an unloaded model: got %v, %v, want false", got, code)
	}
	request := fileInput(pictures[0])
	request.ModelName = "größe 1"
	var trailer metadata.MD
	if _, err := client.ModelInfer(t.Context(), request, grpc.Trailer(&trailer)); status.Code(err) != codes.Unavailable || len(trailer.Get("grpc-retry-pushback-ms")) != 1 {
		t.Errorf("an unloaded model: got %v, trailer %v, want Unavailable and when to come again", err, trailer)
	}
}

// Health is told without a token, as it is now and when it changes; all else asks for the token that HTTP asks for.
func TestGRPCHealthAndTokens(t *testing.T) {
	v := start(t, server.Options{Tokens: []string{testToken}, Poll: poll})
	connection := v.dial(t)
	health, client := grpc_health_v1.NewHealthClient(connection), inference.NewGRPCInferenceServiceClient(connection)
	for service, want := range map[string]codes.Code{"": codes.OK, "inference.GRPCInferenceService": codes.OK, "nobody": codes.NotFound} {
		a, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{Service: service})
		if status.Code(err) != want || want == codes.OK && a.Status != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("health of %q: got %v, %v, want %v", service, a, err, want)
		}
	}
	if _, err := client.ServerLive(t.Context(), &inference.ServerLiveRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("no token: got %v, want Unauthenticated", err)
	}
	if _, err := client.ModelInfer(metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer wrong"), fileInput(pictures[0])); status.Code(err) != codes.Unauthenticated {
		t.Errorf("a wrong token: got %v, want Unauthenticated", err)
	}
	if _, err := services(t.Context(), connection); status.Code(err) != codes.Unauthenticated {
		t.Errorf("reflection without a token: got %v, want Unauthenticated", err)
	}
	known := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+testToken)
	if _, err := client.ModelInfer(known, fileInput(pictures[0])); err != nil {
		t.Errorf("the token: got %v", err)
	}
	names, err := services(known, connection)
	if want := []string{"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection", "inference.GRPCInferenceService"}; err != nil || !slices.Equal(names, want) {
		t.Errorf("reflection: got %v, %v, want %v", names, err, want)
	}
	watch, err := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []grpc_health_v1.HealthCheckResponse_ServingStatus{grpc_health_v1.HealthCheckResponse_SERVING, grpc_health_v1.HealthCheckResponse_NOT_SERVING} {
		if a, err := watch.Recv(); err != nil || a.Status != want {
			t.Errorf("status %d: got %v, %v, want %v", i, a, err, want)
		}
		if i == 0 {
			if a := v.ask(t, "POST", "/v2/repository/models/part/unload", nil, "Authorization", "Bearer "+testToken); a.status != http.StatusOK {
				t.Fatalf("got status %d, %s", a.status, a.body)
			}
		}
	}
}

// services asks by reflection for the names of all services.
func services(ctx context.Context, connection *grpc.ClientConn) (names []string, err error) {
	stream, err := grpc_reflection_v1.NewServerReflectionClient(connection).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { _ = stream.CloseSend() }()
	if err := stream.Send(&grpc_reflection_v1.ServerReflectionRequest{MessageRequest: &grpc_reflection_v1.ServerReflectionRequest_ListServices{}}); err != nil && err != io.EOF { // of which Recv has the reason
		return nil, err
	}
	answer, err := stream.Recv()
	for _, s := range answer.GetListServicesResponse().GetService() {
		names = append(names, s.Name)
	}
	slices.Sort(names)
	return names, err
}

// What requests hold over gRPC is counted as over HTTP: a message beside which there is no room for another is refused for
// now.
func TestGRPCBudget(t *testing.T) {
	v := start(t, server.Options{MaxBody: 50_000, MaxMemory: 250_000})
	client := inference.NewGRPCInferenceServiceClient(v.dial(t))
	// A request that is being sent over HTTP holds its body.
	c, err := net.Dial("tcp", strings.TrimPrefix(v.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\nContent-Length: 45000\r\n\r\n%s", predictPath, bytes.Repeat([]byte("x"), 44000)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the body is held", func() bool { return v.metric(t, `rdpp_budget_bytes{kind="used"}`) > 40_000 })
	if _, err := client.ModelInfer(t.Context(), fileInput(make([]byte, 45_000))); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "--max-memory") {
		t.Errorf("got %v, want Unavailable and --max-memory", err)
	}
	c.Close()
	eventually(t, "the body is let go of", func() bool { return v.metric(t, `rdpp_budget_bytes{kind="used"}`) == 0 })
	if _, err := client.ModelInfer(t.Context(), fileInput(make([]byte, 45_000))); status.Code(err) != codes.InvalidArgument {
		t.Errorf("afterwards: got %v, want that it is no image", err)
	}
}

// What is answered over gRPC is in the history.
func TestGRPCHistory(t *testing.T) {
	h, err := history.Open(t.TempDir()+"/line.db", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	v := start(t, server.Options{History: h})
	if _, err := inference.NewGRPCInferenceServiceClient(v.dial(t)).ModelInfer(t.Context(), fileInput(pictures[:2]...)); err != nil {
		t.Fatal(err)
	}
	var got []float64
	for r, err := range h.List(t.Context(), history.Filter{}) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r.Score)
	}
	if !slices.Equal(got, scores[:2]) {
		t.Errorf("got scores %v in the history, want %v", got, scores[:2])
	}
}

// Calls that have begun are finished when the service ends, and no more are taken.
func TestGRPCGracefulEnd(t *testing.T) {
	v := start(t, server.Options{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- v.ServeGRPC(ctx, l, "", "") }()
	connection, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer connection.Close()
	client := inference.NewGRPCInferenceServiceClient(connection)
	begun, failed := make(chan bool, 100), make(chan error, 1)
	go func() {
		for {
			if _, err := client.ModelInfer(t.Context(), fileInput(pictures[0])); err != nil {
				failed <- err
				return
			}
			begun <- true
		}
	}()
	<-begun
	end()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("got %v, want nil", err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it has not ended in a minute")
	}
	if err := <-failed; status.Code(err) != codes.Unavailable {
		t.Errorf("a call after the end: got %v, want Unavailable", err)
	}
}

// A connection too many takes the place of one whose client has been silent, which connects again when it has a call.
func TestGRPCConnections(t *testing.T) {
	v := start(t, server.Options{MaxConnections: 1})
	first := v.dial(t)
	second, err := grpc.NewClient(first.Target(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	for i, connection := range []*grpc.ClientConn{first, second, first} {
		if _, err := inference.NewGRPCInferenceServiceClient(connection).ModelInfer(t.Context(), fileInput(pictures[0]), grpc.WaitForReady(true)); err != nil {
			t.Errorf("call %d: got %v", i, err)
		}
	}
	if got := v.metric(t, "rdpp_connections_cut_total"); got < 2 {
		t.Errorf("got %v connections cut, want 2 or more", got)
	}
}
