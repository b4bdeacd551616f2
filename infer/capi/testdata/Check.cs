// Tries Rdpp.cs on a model, a PPM file and an encoded image, and prints what Go holds against its own results.
using System;
using System.Globalization;
using System.IO;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;
using Rdpp;

static class Check {
  static void Show(string name, Result r) => Console.WriteLine($"{name} {r.Score:G17} {(r.Anomalous ? 1 : 0)} {r.Regions.Count}");

  static void Want(bool so, string what) {
    if (!so) throw new Exception(what);
  }

  static void Fails(Status status, Action call) {
    try {
      call();
    } catch (RdppException e) {
      Want(e.Status == status && e.Message.Length > 0, $"got {e.Status}, {e.Message}, want {status}");
      return;
    }
    throw new Exception($"got no error, want {status}");
  }

  static void Main(string[] args) {
    CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
    byte[] file = File.ReadAllBytes(args[1]);
    string[] head = Encoding.ASCII.GetString(file, 0, 32).Split('\n'); // P6, "W H", 255
    int width = int.Parse(head[1].Split(' ')[0]), height = int.Parse(head[1].Split(' ')[1]);
    var rgb = new byte[3 * width * height];
    Array.Copy(file, file.Length - rgb.Length, rgb, 0, rgb.Length);
    var bgr = new byte[(3 * width + 7) * height]; // with a gap behind each row
    for (int y = 0; y < height; y++)
      for (int x = 0; x < 3 * width; x++) bgr[y * (3 * width + 7) + x / 3 * 3 + 2 - x % 3] = rgb[y * 3 * width + x];
    var upper = new Mask { Pixels = new byte[width * height], Width = width, Height = height };
    for (int i = 0; i < width * (height / 2); i++) upper.Pixels[i] = 1;

    var detector = new Detector(args[0], new Options { Device = "cpu" });
    Result plain = detector.Detect(rgb, width, height, Order.Rgb);
    Show("plain", plain);
    Show("bgr", detector.Detect(bgr, width, height, Order.Bgr, 3 * width + 7));
    Show("file", detector.DetectEncoded(File.ReadAllBytes(args[2])));
    Show("ignoring", detector.Detect(rgb, width, height, Order.Rgb, 0, upper));
    Show("ignoring", detector.DetectEncoded(File.ReadAllBytes(args[2]), upper));
    IntPtr memory = Marshal.AllocHGlobal(rgb.Length);
    Marshal.Copy(rgb, 0, memory, rgb.Length);
    Show("own", detector.Detect(memory, width, height, Order.Rgb));
    Marshal.FreeHGlobal(memory);

    Want(plain.Width == width && plain.Height == height && plain.AreaWidth == width && plain.AreaY == 0, "the image's size");
    Region r = plain.Regions[0];
    Want(r.Area > 0 && r.X >= 0 && r.X + r.Width <= width && r.Peak >= r.Mean && r.Mean > 0, "a region");
    float most = 0;
    foreach (float v in plain.Map) most = Math.Max(most, v);
    Want(plain.Map.GetLength(0) == plain.Map.GetLength(1) && Math.Abs(most - r.Peak) < 1e-6, "the map");
    int same = 0;
    var threads = new Thread[8];
    for (int i = 0; i < threads.Length; i++) {
      threads[i] = new Thread(() => {
        if (detector.Detect(rgb, width, height, Order.Rgb).Score == plain.Score) Interlocked.Increment(ref same);
      });
      threads[i].Start();
    }
    foreach (Thread t in threads) t.Join();
    Want(same == threads.Length, $"{same} threads got the score");

    Fails(Status.Argument, () => detector.Detect(rgb, width, height + 1, Order.Rgb));
    Fails(Status.Argument, () => detector.Detect(rgb, 0, height, Order.Rgb));
    Fails(Status.Argument, () => detector.Detect(rgb, width, height, Order.Rgb, 0, new Mask { Pixels = upper.Pixels, Width = width, Height = height + 1 }));
    Fails(Status.Image, () => detector.DetectEncoded(new byte[] { 1, 2, 3 }));
    Fails(Status.Model, () => new Detector(args[1]));
    Fails(Status.Argument, () => new Detector(args[0], new Options { Threads = -1 }));
    detector.Dispose();
    detector.Dispose();
    Fails(Status.Closed, () => detector.Detect(rgb, width, height, Order.Rgb));
  }
}
