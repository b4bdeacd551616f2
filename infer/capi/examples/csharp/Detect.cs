// Scores images with a model, by Rdpp.cs, with .NET:
//
//   LD_LIBRARY_PATH=/opt/rdpp/lib dotnet run --project . -- model.safetensors image.png ...
//
// or with Mono: mcs -out:detect.exe Detect.cs ../../Rdpp.cs && LD_LIBRARY_PATH=/opt/rdpp/lib mono detect.exe model.safetensors image.png ...
//
// Prints "score normalised anomalous regions width height file" per image.
using System;
using System.Globalization;
using System.IO;

static class Detect {
  static int Main(string[] args) {
    if (args.Length < 2) {
      Console.Error.WriteLine("usage: detect MODEL IMAGE...");
      return 2;
    }
    CultureInfo.CurrentCulture = CultureInfo.InvariantCulture;
    int code = 0;
    try {
      using (var detector = new Rdpp.Detector(args[0])) {
        for (int i = 1; i < args.Length; i++) {
          try {
            Rdpp.Result r = detector.DetectEncoded(File.ReadAllBytes(args[i]));
            Console.WriteLine($"{r.Score:G17} {r.Normalised:G17} {(r.Anomalous ? 1 : 0)} {r.Regions.Count} {r.Width} {r.Height} {args[i]}");
          } catch (Exception e) when (e is Rdpp.RdppException || e is IOException) {
            Console.Error.WriteLine($"detect: {args[i]}: {e.Message}");
            code = 1;
          }
        }
      }
    } catch (Rdpp.RdppException e) {
      Console.Error.WriteLine($"detect: {e.Message}");
      return 1;
    }
    return code;
  }
}
