// Finds defects with a model that `train` made, by librdpp.so:
//
//   using (var detector = new Rdpp.Detector("model.safetensors")) {
//     Rdpp.Result result = detector.Detect(pixels, width, height, Rdpp.Order.Bgr);
//     Console.WriteLine(result.Anomalous + " " + result.Score);
//   }
//
// It is one file of C# 7.3 without dependencies, for .NET Standard 2.0 and later, .NET 6 and later, and Mono 6. The library is found
// where the system looks for libraries: beside the program, in LD_LIBRARY_PATH or where ldconfig knows it. rdpp.h says the rest.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

namespace Rdpp {

/// <summary>Orders of 8-bit channels in a pixel.</summary>
public enum Order { Rgb = 0, Bgr = 1, Grey = 2 }

/// <summary>Kinds of errors, as rdpp.h numbers them.</summary>
public enum Status {
  Argument = 1, Closed = 2, Model = 3, Image = 4, Device = 5, Failed = 6, Internal = 7, Memory = 8, Unsupported = 9
}

/// <summary>What the library refused or failed to do.</summary>
public sealed class RdppException : Exception {
  /// <summary>What kind of error it is.</summary>
  public Status Status { get; }

  internal RdppException(Status status, string message) : base(message) { Status = status; }
}

/// <summary>How to open a model. What stays 0 or null is the default.</summary>
public sealed class Options {
  /// <summary>Threads of one operation on the CPU, for the whole process; 0: as before.</summary>
  public int Threads { get; set; }
  /// <summary>"auto", "cpu", "cuda" or "cuda:N".</summary>
  public string Device { get; set; }
  /// <summary>Largest image accepted, width x height; 0: 100 million.</summary>
  public long MaxPixels { get; set; }
  /// <summary>Share of good images that may be anomalous; 0: the model's own.</summary>
  public double FalseAlarm { get; set; }
  /// <summary>Score above which an image is anomalous; 0: the model's own.</summary>
  public double Threshold { get; set; }
  /// <summary>Value of the map above which a pixel is in a region, also of a good image; 0: see rdpp.h.</summary>
  public double PixelThreshold { get; set; }
  /// <summary>Value of the map that regions reach down to; 0: see rdpp.h.</summary>
  public double RegionLow { get; set; }
  /// <summary>Regions of fewer pixels are left out.</summary>
  public long MinArea { get; set; }
  /// <summary>So are those whose box's longer side is shorter.</summary>
  public long MinLength { get; set; }
}

/// <summary>A connected part of an image where its map stands out, in pixels of the image.</summary>
[StructLayout(LayoutKind.Sequential)]
public struct Region {
  /// <summary>Left and upper edge of the bounding box.</summary>
  public int X, Y;
  /// <summary>Of the bounding box.</summary>
  public int Width, Height;
  /// <summary>Of the region itself.</summary>
  public long Area;
  /// <summary>Highest value of the map inside.</summary>
  public float Peak;
  /// <summary>Of the map's values inside.</summary>
  public float Mean;
}

/// <summary>A mask of what of an image is not scored: Height rows of Width bytes, which are not 0 there.</summary>
public sealed class Mask {
  /// <summary>Height rows, each beginning Stride bytes after the one before.</summary>
  public byte[] Pixels { get; set; }
  /// <summary>Of the mask.</summary>
  public int Width { get; set; }
  /// <summary>Of the mask.</summary>
  public int Height { get; set; }
  /// <summary>0: rows follow each other without a gap.</summary>
  public long Stride { get; set; }
}

/// <summary>What is known about an image.</summary>
public sealed class Result {
  /// <summary>The score is above the threshold.</summary>
  public bool Anomalous { get; internal set; }
  /// <summary>0 (like good parts) or more.</summary>
  public double Score { get; internal set; }
  /// <summary>0 to 1, rises with the score, 0.5 at the threshold.</summary>
  public double Normalised { get; internal set; }
  /// <summary>How rare such a score is among good parts; null: the model is not calibrated.</summary>
  public double? PValue { get; internal set; }
  /// <summary>The p-value is a bound, as no good part's score is as high.</summary>
  public bool PValueBound { get; internal set; }
  /// <summary>In force, of the score.</summary>
  public double Threshold { get; internal set; }
  /// <summary>In force, of the map.</summary>
  public double PixelThreshold { get; internal set; }
  /// <summary>The threshold is a stand-in that promises no rate of false alarms.</summary>
  public bool Provisional { get; internal set; }
  /// <summary>The rate of false alarms is exact.</summary>
  public bool Exact { get; internal set; }
  /// <summary>Of the image, pixels.</summary>
  public int Width { get; internal set; }
  /// <summary>Of the image, pixels.</summary>
  public int Height { get; internal set; }
  /// <summary>The highest peak first.</summary>
  public IReadOnlyList<Region> Regions { get; internal set; }
  /// <summary>The anomaly map, rows x columns.</summary>
  public float[,] Map { get; internal set; }
  /// <summary>Left and upper edge, width and height of what the map covers, pixels of the image.</summary>
  public double AreaX { get; internal set; }
  /// <summary>See AreaX.</summary>
  public double AreaY { get; internal set; }
  /// <summary>See AreaX.</summary>
  public double AreaWidth { get; internal set; }
  /// <summary>See AreaX.</summary>
  public double AreaHeight { get; internal set; }
  /// <summary>Of a model that aligns parts: how far to the right the part was found to lie, pixels of the image.</summary>
  public double PoseX { get; internal set; }
  /// <summary>How far down.</summary>
  public double PoseY { get; internal set; }
  /// <summary>How far it is turned, clockwise, around the image's middle.</summary>
  public double PoseDegrees { get; internal set; }
  /// <summary>Of the image with the training images' mean; 0: no part was looked for, or it was not found.</summary>
  public double PoseCorrelation { get; internal set; }
  /// <summary>In words: the image was not taken, or stored, as the training images were; "": it was.</summary>
  public string Warnings { get; internal set; }
}

/// <summary>An open model, which Dispose closes. Any thread may use it, several at a time.</summary>
public sealed class Detector : IDisposable {
  const uint Abi = 1;
  long handle; // rdpp_detector; 0: closed

  /// <summary>Opens a model file.</summary>
  /// <exception cref="RdppException">It cannot be read or is no model, or an option is out of range.</exception>
  public Detector(string modelFile, Options options = null) {
    if (modelFile == null) throw new ArgumentNullException(nameof(modelFile));
    if (Native.rdpp_abi_version() != Abi) throw new RdppException(Status.Unsupported, "librdpp.so has another ABI than Rdpp.cs; use the one that came with it");
    options = options ?? new Options();
    byte[] device = options.Device == null ? null : Text(options.Device);
    GCHandle held = GCHandle.Alloc(device, GCHandleType.Pinned);
    try {
      var raw = new Native.Options {
        size = (uint)Marshal.SizeOf<Native.Options>(), threads = options.Threads, device = device == null ? IntPtr.Zero : held.AddrOfPinnedObject(),
        maxPixels = options.MaxPixels, falseAlarm = options.FalseAlarm, threshold = options.Threshold, pixelThreshold = options.PixelThreshold,
        regionLow = options.RegionLow, minArea = options.MinArea, minLength = options.MinLength
      };
      Check(Native.rdpp_open(Text(modelFile), ref raw, out ulong opened, out IntPtr message), message);
      handle = (long)opened;
    } finally {
      held.Free();
    }
  }

  /// <summary>Scores an image in memory: height rows, each beginning stride bytes after the one before, of width pixels of 3 bytes, or 1
  /// (Order.Grey). stride 0: rows follow each other without a gap. ignore null: all is scored.</summary>
  /// <exception cref="RdppException">The image cannot be scored, or the detector is closed.</exception>
  public Result Detect(byte[] pixels, int width, int height, Order order, long stride = 0, Mask ignore = null) {
    if (pixels == null) throw new ArgumentNullException(nameof(pixels));
    if (width < 1 || height < 1) throw new RdppException(Status.Argument, $"an image of {width} x {height} pixels has none");
    long row = (long)width * (order == Order.Grey ? 1 : 3);
    Fits(pixels, row, height, stride, "the image");
    GCHandle held = GCHandle.Alloc(pixels, GCHandleType.Pinned);
    try {
      return Detect(held.AddrOfPinnedObject(), width, height, order, stride, ignore);
    } finally {
      held.Free();
    }
  }

  /// <summary>Detect of pixels in memory that is not managed, as cameras have it. It has to hold all rows.</summary>
  /// <exception cref="RdppException">The image cannot be scored, or the detector is closed.</exception>
  public Result Detect(IntPtr pixels, int width, int height, Order order, long stride = 0, Mask ignore = null) =>
      Run(ignore, (IntPtr mask, ref Native.Result raw, out IntPtr message) =>
          Native.rdpp_detect_pixels_ignoring(Handle, pixels, width, height, stride, (int)order, mask, ref raw, out message));

  /// <summary>Scores the content of a PNG, JPEG, BMP, TIFF or WebP file.</summary>
  /// <exception cref="RdppException">The image cannot be scored, or the detector is closed.</exception>
  public Result DetectEncoded(byte[] data, Mask ignore = null) {
    if (data == null) throw new ArgumentNullException(nameof(data));
    return Run(ignore, (IntPtr mask, ref Native.Result raw, out IntPtr message) =>
        Native.rdpp_detect_encoded_ignoring(Handle, data, (UIntPtr)data.Length, mask, ref raw, out message));
  }

  /// <summary>Frees the model once the images that it works on are done. Doing so again does nothing.</summary>
  public void Dispose() {
    long open = Interlocked.Exchange(ref handle, 0);
    if (open != 0) Native.rdpp_close((ulong)open);
    GC.SuppressFinalize(this);
  }

  /// <summary>Frees a model that was forgotten.</summary>
  ~Detector() { Dispose(); }

  ulong Handle => (ulong)Interlocked.Read(ref handle);

  delegate int Call(IntPtr mask, ref Native.Result raw, out IntPtr message);

  Result Run(Mask ignore, Call call) {
    var raw = new Native.Result { size = (uint)Marshal.SizeOf<Native.Result>() };
    var held = new List<GCHandle>();
    try {
      Check(call(Pin(ignore, held), ref raw, out IntPtr message), message);
      return Of(ref raw);
    } finally {
      Native.rdpp_result_free(ref raw);
      foreach (GCHandle h in held) h.Free();
      GC.KeepAlive(this);
    }
  }

  // Pin is the address of a mask, which stays there until what is held is freed.
  static IntPtr Pin(Mask ignore, List<GCHandle> held) {
    if (ignore == null) return IntPtr.Zero;
    if (ignore.Pixels == null || ignore.Width < 1 || ignore.Height < 1) throw new RdppException(Status.Argument, "the mask has no pixels");
    Fits(ignore.Pixels, ignore.Width, ignore.Height, ignore.Stride, "the mask");
    held.Add(GCHandle.Alloc(ignore.Pixels, GCHandleType.Pinned));
    object raw = new Native.Mask {
      size = (uint)Marshal.SizeOf<Native.Mask>(), width = ignore.Width, height = ignore.Height, stride = ignore.Stride,
      pixels = held[0].AddrOfPinnedObject()
    };
    held.Add(GCHandle.Alloc(raw, GCHandleType.Pinned));
    return held[1].AddrOfPinnedObject();
  }

  // Fits refuses an array that ends before the last row.
  static void Fits(byte[] array, long row, int height, long stride, string what) {
    long step = stride == 0 ? row : stride;
    if (step < row || array.LongLength < step * (height - 1) + row)
      throw new RdppException(Status.Argument, $"{what} has {array.LongLength} bytes; {height} rows of {row} bytes, {step} apart, need more, or a larger stride");
  }

  static void Check(int status, IntPtr message) {
    if (status == 0) return;
    string text = FromUtf8(message);
    Native.rdpp_message_free(message);
    throw new RdppException((Status)status, text);
  }

  static Result Of(ref Native.Result raw) {
    var regions = new Region[raw.regionCount];
    int size = Marshal.SizeOf<Region>();
    for (int i = 0; i < regions.Length; i++) regions[i] = Marshal.PtrToStructure<Region>(raw.regions + i * size);
    var map = new float[raw.mapHeight, raw.mapWidth];
    if (raw.map != IntPtr.Zero) {
      var row = new float[raw.mapWidth];
      for (int y = 0; y < raw.mapHeight; y++) {
        Marshal.Copy(new IntPtr(raw.map.ToInt64() + 4L * y * raw.mapWidth), row, 0, row.Length);
        Buffer.BlockCopy(row, 0, map, 4 * y * row.Length, 4 * row.Length);
      }
    }
    return new Result {
      Anomalous = raw.anomalous != 0, Score = raw.score, Normalised = raw.normalised, PValue = double.IsNaN(raw.pValue) ? (double?)null : raw.pValue,
      PValueBound = raw.pValueBound != 0, Threshold = raw.threshold, PixelThreshold = raw.pixelThreshold, Provisional = raw.provisional != 0,
      Exact = raw.exact != 0, Width = raw.width, Height = raw.height, Regions = regions, Map = map, AreaX = raw.areaX, AreaY = raw.areaY,
      AreaWidth = raw.areaWidth, AreaHeight = raw.areaHeight, PoseX = raw.poseX, PoseY = raw.poseY,
      PoseDegrees = raw.poseDegrees, PoseCorrelation = raw.poseCorrelation, Warnings = FromUtf8(raw.warnings)
    };
  }

  // Text is a string as C has it, in UTF-8.
  static byte[] Text(string s) => Encoding.UTF8.GetBytes(s + "\0");

  static string FromUtf8(IntPtr text) {
    if (text == IntPtr.Zero) return "";
    int length = 0;
    while (Marshal.ReadByte(text, length) != 0) length++;
    var bytes = new byte[length];
    Marshal.Copy(text, bytes, 0, length);
    return Encoding.UTF8.GetString(bytes);
  }
}

// Native is rdpp.h.
static class Native {
  const string Library = "rdpp"; // librdpp.so

  [StructLayout(LayoutKind.Sequential)]
  internal struct Options {
    internal uint size;
    internal int threads;
    internal IntPtr device;
    internal long maxPixels;
    internal double falseAlarm, threshold, pixelThreshold, regionLow;
    internal long minArea, minLength;
  }

  [StructLayout(LayoutKind.Sequential)]
  internal struct Result {
    internal uint size;
    internal int anomalous;
    internal double score, normalised, pValue, threshold, pixelThreshold;
    internal int provisional, width, height, mapSide;
    internal long regionCount;
    internal IntPtr regions, map;
    internal int exact, pValueBound;
    internal IntPtr warnings;
    internal int mapWidth, mapHeight;
    internal double areaX, areaY, areaWidth, areaHeight;
    internal double poseX, poseY, poseDegrees, poseCorrelation;
  }

  [StructLayout(LayoutKind.Sequential)]
  internal struct Mask {
    internal uint size;
    internal int width, height, reserved;
    internal long stride;
    internal IntPtr pixels;
  }

  [DllImport(Library)] internal static extern uint rdpp_abi_version();
  [DllImport(Library)] internal static extern int rdpp_open(byte[] modelFile, ref Options options, out ulong detector, out IntPtr message);
  [DllImport(Library)] internal static extern void rdpp_close(ulong detector);
  [DllImport(Library)] internal static extern int rdpp_detect_pixels_ignoring(ulong detector, IntPtr pixels, int width, int height, long stride, int order,
                                                                             IntPtr ignore, ref Result result, out IntPtr message);
  [DllImport(Library)] internal static extern int rdpp_detect_encoded_ignoring(ulong detector, byte[] data, UIntPtr size, IntPtr ignore, ref Result result,
                                                                              out IntPtr message);
  [DllImport(Library)] internal static extern void rdpp_result_free(ref Result result);
  [DllImport(Library)] internal static extern void rdpp_message_free(IntPtr message);
}
}
