package server_test

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// browser is a headless Chromium with one page, steered through its pipe by the DevTools protocol.
type browser struct {
	t       *testing.T
	to      io.Writer
	from    *bufio.Reader
	session string // of the page
	id      int
	chooser int // the latest input whose files the page has asked for
}

// chromium is the path of a Chromium, "" if there is none.
func chromium() string {
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// openBrowser starts a browser with a page; it ends with the test.
func openBrowser(t *testing.T, address string) *browser {
	t.Helper()
	program := chromium()
	if program == "" {
		t.Skip("no Chromium: install one to have the page tested")
	}
	profile, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	commands, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	from, answers, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
		"--disable-background-networking", "--disable-component-update", "--disable-sync", "--remote-debugging-pipe",
		"--disable-dev-shm-usage", "--hide-scrollbars", "--user-data-dir="+profile, address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.ExtraFiles = []*os.File{commands, answers} // 3 and 4, where Chromium expects them
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	commands.Close()
	answers.Close()
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // its children too
		_ = cmd.Wait()
		to.Close()
		from.Close()
		os.RemoveAll(profile) // an error is none of ours: the browser's processes may write to it for a moment longer
	})
	if err := from.SetReadDeadline(time.Now().Add(5 * time.Minute)); err != nil {
		t.Fatal(err)
	}
	b := &browser{t: t, to: to, from: bufio.NewReader(from)}
	b.attach()
	return b
}

// attach finds the page.
func (b *browser) attach() {
	b.t.Helper()
	var targets struct {
		TargetInfos []struct{ TargetID, Type string }
	}
	eventually(b.t, "a page", func() bool {
		b.call("Target.getTargets", nil, &targets)
		return len(targets.TargetInfos) > 0
	})
	for _, target := range targets.TargetInfos {
		if target.Type == "page" {
			var attached struct{ SessionID string }
			b.call("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &attached)
			b.session = attached.SessionID
		}
	}
	b.call("Page.enable", nil, nil)
}

// call sends a command and waits for its result, which may be nil. Events are looked at on the way.
func (b *browser) call(method string, parameters map[string]any, result any) {
	b.t.Helper()
	b.id++
	command := map[string]any{"id": b.id, "method": method}
	if parameters != nil {
		command["params"] = parameters
	}
	if b.session != "" {
		command["sessionId"] = b.session
	}
	text, err := json.Marshal(command)
	if err == nil {
		_, err = b.to.Write(append(text, 0))
	}
	for err == nil {
		var message struct {
			ID     int
			Method string
			Params struct{ BackendNodeID int }
			Error  *struct{ Message string }
			Result json.RawMessage
		}
		if text, err = b.from.ReadBytes(0); err == nil {
			err = json.Unmarshal(text[:len(text)-1], &message)
		}
		if message.Method == "Page.fileChooserOpened" {
			b.chooser = message.Params.BackendNodeID
		}
		if err != nil || message.ID != b.id {
			continue
		}
		if message.Error != nil {
			b.t.Fatalf("%s: %s", method, message.Error.Message)
		}
		if result != nil {
			err = json.Unmarshal(message.Result, result)
		}
		if err == nil {
			return
		}
	}
	b.t.Fatalf("%s: %v", method, err)
}

// evaluate runs JavaScript in the page and waits for what it promises; result may be nil.
func (b *browser) evaluate(script string, result any) {
	b.t.Helper()
	var answer struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails *struct{ Exception struct{ Description string } }
	}
	b.call("Runtime.evaluate", map[string]any{"expression": script, "awaitPromise": true, "returnByValue": true}, &answer)
	if answer.ExceptionDetails != nil {
		b.t.Fatalf("%s: %s", script, answer.ExceptionDetails.Exception.Description)
	}
	if result == nil {
		return
	}
	if err := json.Unmarshal(answer.Result.Value, result); err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
}

// keys are those that press knows, by their names in the DOM: code of Windows and text.
var keys = map[string]struct {
	code int
	text string
}{
	"Tab": {9, ""}, "Enter": {13, "\r"}, " ": {32, " "}, "End": {35, ""}, "Home": {36, ""}, "ArrowLeft": {37, ""}, "ArrowRight": {39, ""},
}

// press hits a key n times.
func (b *browser) press(key string, n int) {
	b.t.Helper()
	for range n {
		for _, kind := range []string{"keyDown", "keyUp"} {
			b.call("Input.dispatchKeyEvent", map[string]any{"type": kind, "key": key, "code": key, "windowsVirtualKeyCode": keys[key].code,
				"text": keys[key].text}, nil)
		}
	}
}

// resize makes the screen a desktop's or a phone's, and the colours light or dark.
func (b *browser) resize(width, height int, phone bool, scheme string) {
	b.t.Helper()
	b.call("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}, nil)
	b.call("Emulation.setEmulatedMedia", map[string]any{"features": []map[string]string{{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// screenshot writes the whole page as a PNG file.
func (b *browser) screenshot(path string) {
	b.t.Helper()
	var shot struct{ Data string }
	b.call("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	data, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(path, data, 0o666)
	}
	if err != nil {
		b.t.Fatal(fmt.Errorf("a screenshot: %w", err))
	}
}
