/* The boundary as a C program sees it: a training step and a prediction of the smallest network, a teacher that learns,
 * a bank of patches, flows of both kinds, descriptors in spheres, a TorchScript file, errors that must come back with
 * their kinds. Run plainly and under sanitizers by scripts/test.sh.
 */
#include "rdpp.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { B = 2, S = 64, N = B * 3 * S * S };

static void check(rdpp_error e, const char *what) {
  if (e == NULL) return;
  fprintf(stderr, "smoke: %s: error %d, %s\n", what, e->code, e->message);
  rdpp_error_free(e);
  exit(1);
}

static void failed(int32_t code, rdpp_error e, const char *what, const char *part) {
  if (e == NULL || e->code != code || strstr(e->message, part) == NULL || strchr(e->message, '\n') != NULL) {
    fprintf(stderr, "smoke: %s: got error %d, \"%s\", want %d with \"%s\" in one line\n", what, e ? e->code : 0,
            e ? e->message : "", code, part);
    exit(1);
  }
  rdpp_error_free(e);
}

static void refused(rdpp_error e, const char *what, const char *part) { failed(RDPP_BAD_ARGUMENT, e, what, part); }

static void free_all(rdpp_tensor x[RDPP_SCALES]) {
  for (int k = 0; k < RDPP_SCALES; k++) rdpp_tensor_free(x[k]);
}

/* A step of a teacher that learns: pictures as bytes, in mixed precision where the processor has instructions for it,
 * with a head on the last scale. */
static void pretrain(void) {
  static uint8_t bytes[N];
  for (int i = 0; i < N; i++) bytes[i] = (uint8_t)(i * 7919);
  const float mean[3] = {0.5f, 0.5f, 0.5f}, std[3] = {0.25f, 0.25f, 0.25f};
  const int64_t labels[B] = {2, -1};
  rdpp_module *teacher, *head, *none = NULL;
  rdpp_adam *adam;
  rdpp_tensor x, f[RDPP_SCALES], y, loss, accuracy;
  int32_t flags = RDPP_CHANNELS_LAST | RDPP_TRAINABLE;
  check(rdpp_module_new(RDPP_TEACHER, "resnet18", RDPP_FLOAT32, RDPP_CPU, 7, flags, &teacher), "new teacher");
  check(rdpp_head_new(RDPP_CLASS, "resnet18", 3, RDPP_FLOAT32, RDPP_CPU, 7, &head), "new head");
  check(rdpp_adam_new(0.9, 0.999, 1e-8, &adam), "new Adam");
  check(rdpp_adam_add(adam, teacher, 1), "group");
  check(rdpp_adam_set_rate(adam, 0, 0.001), "rate");
  check(rdpp_adam_set_decay(adam, 0, 0.05), "decay");
  int32_t mixed;
  check(rdpp_has_bfloat16(RDPP_CPU, &mixed), "bfloat16");
  if (!mixed) printf("smoke: mixed precision: skipped, this processor has no instructions for bfloat16\n");
  double values[3];
  for (int step = 0; step < 3; step++) {
    check(rdpp_images(bytes, B, S, mean, std, RDPP_CPU, mixed ? RDPP_BFLOAT16 : RDPP_FLOAT32, &x), "images");
    check(rdpp_teacher(teacher, x, f), "teacher");
    check(rdpp_head(head, 2, f[2], &y), "head");
    check(rdpp_loss_class(y, labels, B, 0.1, &loss, &accuracy), "cross-entropy");
    check(rdpp_backward(loss), "backward");
    check(rdpp_adam_step(adam), "step");
    check(rdpp_scalars(&loss, 1, &values[step]), "scalars");
    rdpp_tensor made[] = {x, y, loss, accuracy};
    for (size_t i = 0; i < sizeof made / sizeof *made; i++) rdpp_tensor_free(made[i]);
    free_all(f);
  }
  if (!(values[2] < values[0])) {
    fprintf(stderr, "smoke: a teacher that learns: got losses %g and then %g, want a fall\n", values[0], values[2]);
    exit(1);
  }
  refused(rdpp_head_new(9, "resnet18", 3, RDPP_FLOAT32, RDPP_CPU, 7, &none), "objective", "unknown objective");
  refused(rdpp_head(teacher, 0, NULL, &y), "no head", "a head is needed");
  refused(rdpp_adam_set_rate(adam, 1, 0.1), "no group", "");
  if (none != NULL) exit(1);
  rdpp_module_free(teacher);
  rdpp_module_free(head);
  rdpp_adam_free(adam);
}

/* PatchCore: patches of images, a coreset of them, the bank of it, and predictions by the bank. */
static void remember(rdpp_module *teacher, rdpp_module *student, rdpp_tensor x) {
  enum { D = 384, SIDE = S / 8, COUNT = B * SIDE * SIDE, CHOSEN = 5 };
  rdpp_tensor f[RDPP_SCALES], patches, half, chosen, signs, state, map, score;
  check(rdpp_teacher(teacher, x, f), "teacher");
  check(rdpp_patches(f, 0, &patches), "patches");
  check(rdpp_tensor_to(patches, RDPP_CPU, RDPP_FLOAT16, &half), "half");
  static float projection[D * 2];
  for (int i = 0; i < D * 2; i++) projection[i] = (float)(i % 3 - 1);
  const int64_t projects[] = {D, 2}, start[] = {0, COUNT - 1}, beyond[] = {COUNT};
  check(rdpp_tensor_new(RDPP_FLOAT32, projection, projects, 2, &signs), "projection");

  /* With and without a projection; the patches are freed while they are searched. */
  static float rows[CHOSEN * D], all[COUNT * D];
  check(rdpp_tensor_read(half, RDPP_FLOAT32, all, COUNT * D), "read");
  for (int projected = 0; projected < 2; projected++) {
    rdpp_tensor copy;
    rdpp_coreset *coreset;
    int64_t size, numbers[CHOSEN];
    check(rdpp_tensor_to(patches, RDPP_CPU, RDPP_FLOAT16, &copy), "half");
    check(rdpp_coreset_new(&copy, 1, projected ? signs : NULL, start, 2, &coreset), "new coreset");
    rdpp_tensor_free(copy);
    check(rdpp_coreset_grow(coreset, -1, &size), "grow by less than nothing");
    check(rdpp_coreset_patches(coreset, &chosen), "no patches");
    check(rdpp_tensor_read(chosen, RDPP_FLOAT32, rows, 0), "read");
    rdpp_tensor_free(chosen);
    check(rdpp_coreset_grow(coreset, CHOSEN, &size), "grow");
    refused(rdpp_coreset_chosen(coreset, CHOSEN + 1, numbers), "another number", "has 5 patches, not 6");
    check(rdpp_coreset_chosen(coreset, CHOSEN, numbers), "chosen");
    check(rdpp_coreset_patches(coreset, &chosen), "chosen patches");
    check(rdpp_tensor_read(chosen, RDPP_FLOAT32, rows, CHOSEN * D), "read");
    for (int i = 0; i < CHOSEN; i++) {
      if (memcmp(&rows[i * D], &all[numbers[i] * D], D * sizeof(float)) != 0) {
        fprintf(stderr, "smoke: coreset: chosen patch %d is not patch %d\n", i, (int)numbers[i]);
        exit(1);
      }
    }
    check(rdpp_coreset_grow(coreset, COUNT, &size), "grow to the end");
    if (size != COUNT) {
      fprintf(stderr, "smoke: coreset: got %d patches, want all %d\n", (int)size, COUNT);
      exit(1);
    }
    rdpp_coreset_free(coreset);
    if (!projected) rdpp_tensor_free(chosen);
  }

  rdpp_module *bank, *narrow, *none = NULL;
  rdpp_predictor *predictor, *nobody = NULL;
  const char *name;
  int32_t trainable;
  check(rdpp_bank_new(CHOSEN, D, RDPP_FLOAT32, RDPP_CPU, &bank), "new bank");
  check(rdpp_module_state(bank, 0, &name, &state, &trainable), "state");
  check(rdpp_tensor_write(state, RDPP_FLOAT32, rows, CHOSEN * D), "write");
  check(rdpp_module_train(bank, 0), "eval mode");
  const rdpp_predictor_options how = {.bank = {4, 0, 0, 3, 1 << 10}};
  const rdpp_module *of[] = {teacher, bank};
  check(rdpp_predictor_new(RDPP_PATCHES, of, 2, &how, &predictor), "new predictor");
  check(rdpp_predict(predictor, x, &map, &score), "predict");
  float scores[B];
  check(rdpp_tensor_read(score, RDPP_FLOAT32, scores, B), "read");
  if (!(scores[0] > 0 && scores[1] > 0)) {
    fprintf(stderr, "smoke: scores: got %g and %g, want distances from a bank of few patches\n", scores[0], scores[1]);
    exit(1);
  }

  rdpp_coreset *wrong = NULL;
  rdpp_tensor lacking[RDPP_SCALES] = {f[0], NULL, f[2]}, mixed[] = {half, patches}, unlike[] = {half, signs}, made;
  int64_t size;
  refused(rdpp_patches(lacking, 0, &made), "no features", "closed");
  refused(rdpp_patches(f, 3, &made), "odd dimensions", "multiple of 2");
  refused(rdpp_patches(f, -2, &made), "negative dimensions", "multiple of 2");
  refused(rdpp_coreset_new(&half, 0, NULL, start, 2, &wrong), "no tensors", "no patches");
  refused(rdpp_coreset_new(NULL, 1, NULL, start, 2, &wrong), "no tensors", "no patches");
  refused(rdpp_coreset_new(lacking + 1, 1, NULL, start, 2, &wrong), "a closed tensor", "closed");
  refused(rdpp_coreset_new(&half, 1, NULL, start, 0, &wrong), "no start", "starting point");
  refused(rdpp_coreset_new(&half, 1, NULL, NULL, 1, &wrong), "no start", "starting point");
  refused(rdpp_coreset_new(&half, 1, NULL, beyond, 1, &wrong), "a start beyond", "starting point 128 of 128");
  refused(rdpp_coreset_new(&half, 1, x, start, 2, &wrong), "another shape of signs", "D x K");
  refused(rdpp_coreset_new(&signs, 1, signs, start, 1, &wrong), "signs of other dimensions", "384 dimensions");
  refused(rdpp_coreset_new(mixed, 2, NULL, start, 2, &wrong), "two types", "unlike the first");
  refused(rdpp_coreset_new(unlike, 2, NULL, start, 2, &wrong), "two widths", "unlike the first");
  refused(rdpp_coreset_new(&score, 1, NULL, start, 1, &wrong), "one dimension", "must be rows");
  refused(rdpp_coreset_grow(NULL, 1, &size), "no coreset", "closed");
  refused(rdpp_coreset_chosen(NULL, 0, &size), "no coreset", "closed");
  refused(rdpp_coreset_patches(NULL, &made), "no coreset", "closed");
  refused(rdpp_bank_new(0, D, RDPP_FLOAT32, RDPP_CPU, &none), "no rows", "a bank of 0 patches");
  refused(rdpp_bank_new(1, -1, RDPP_FLOAT32, RDPP_CPU, &none), "no columns", "-1 dimensions");
  refused(rdpp_bank_new(1, D, RDPP_FLOAT16, RDPP_CPU, &none), "type", "float32 or float64");
  failed(RDPP_OUT_OF_MEMORY, rdpp_bank_new(INT64_C(1) << 40, D, RDPP_FLOAT32, RDPP_CPU, &none), "large", "memory");
  failed(RDPP_DEVICE_FAILED, rdpp_bank_new(1, D, RDPP_FLOAT32, 99, &none), "device", "CUDA device 99");
  const rdpp_module *swapped[] = {bank, teacher}, *missing[] = {teacher, NULL}, *other[] = {teacher, student};
  refused(rdpp_predictor_new(RDPP_PATCHES, of, 1, &how, &nobody), "modules", "a teacher and a bank");
  refused(rdpp_predictor_new(RDPP_PATCHES, swapped, 2, &how, &nobody), "modules", "a teacher is needed");
  refused(rdpp_predictor_new(RDPP_PATCHES, missing, 2, &how, &nobody), "no bank", "closed");
  refused(rdpp_predictor_new(RDPP_PATCHES, other, 2, &how, &nobody), "no bank", "a bank is needed");
  refused(rdpp_predictor_new(RDPP_PATCHES, NULL, 2, &how, &nobody), "no modules", "modules and options");
  refused(rdpp_predictor_new(RDPP_PATCHES, of, 2, NULL, &nobody), "no options", "modules and options");
  refused(rdpp_predict(predictor, signs, &made, &made), "no images", "B x 3 x S x S");
  check(rdpp_bank_new(1, D / 2, RDPP_FLOAT32, RDPP_CPU, &narrow), "new bank");
  const rdpp_module *thin[] = {teacher, narrow};
  check(rdpp_predictor_new(RDPP_PATCHES, thin, 2, &how, &nobody), "new predictor");
  refused(rdpp_predict(nobody, x, &made, &made), "patches of other dimensions", "B x H x W x 192");
  if (wrong != NULL || none != NULL) exit(1);

  rdpp_predictor_free(nobody);
  rdpp_predictor_free(predictor);
  rdpp_coreset_free(NULL);
  rdpp_module_free(bank);
  rdpp_module_free(narrow);
  free_all(f);
  rdpp_tensor single[] = {patches, half, chosen, signs, state, map, score};
  for (size_t i = 0; i < sizeof single / sizeof *single; i++) rdpp_tensor_free(single[i]);
}

/* A TorchScript file of one parameter, written through a descriptor. */
static void script(rdpp_tensor weight) {
  const char *source = "def forward(self, x: Tensor) -> Tensor:\n    return x * self.weight\n";
  const char *names[] = {"weight"}, *extra[] = {"threshold", "0.5"};
  FILE *file = tmpfile();
  if (file == NULL) {
    perror("smoke: tmpfile");
    exit(1);
  }
  check(rdpp_script_save(source, names, &weight, 1, extra, 1, fileno(file)), "script");
  fseek(file, 0, SEEK_END);
  if (ftell(file) < 500) {
    fprintf(stderr, "smoke: script: got a file of %ld bytes, want more\n", ftell(file));
    exit(1);
  }
  fclose(file);
  refused(rdpp_script_save("def", names, &weight, 1, NULL, 0, 1), "no script", "");
  refused(rdpp_script_save(source, NULL, NULL, 0, NULL, 0, 1), "no parameter", "weight");
  failed(RDPP_INTERNAL, rdpp_script_save(source, names, &weight, 1, NULL, 0, -1), "no descriptor", "descriptor");
}

/* FastFlow: an update of its flows, their way back, and predictions by them. */
static void flow(const rdpp_module *teacher, const rdpp_module *other, rdpp_tensor x) {
  const rdpp_fastflow_options options = {S, 2, 1, 1, 2, 1}, odd = {S + 1, 2, 1, 1, 2, 1};
  rdpp_module *m, *none = NULL;
  check(rdpp_fastflow_new("resnet18", &options, RDPP_FLOAT32, RDPP_CPU, 3, RDPP_CHANNELS_LAST, &m), "new flow");
  refused(rdpp_fastflow_new("resnet18", &odd, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "side", "multiple of 32");
  refused(rdpp_fastflow_new("resnet18", NULL, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "no options", "needs options");
  const rdpp_fastflow_options impossible[] = {{S, 0, 1, 1, 2, 1},   {S, 1 << 20, 1, 1, 2, 1}, {S, 2, NAN, 1, 2, 1},
                                              {S, 2, 1e9, 1, 2, 1}, {S, 2, 1, 1, 0, 1},       {S, 2, 1, 1, NAN, 1}};
  for (size_t i = 0; i < sizeof impossible / sizeof *impossible; i++) {
    refused(rdpp_fastflow_new("resnet18", &impossible[i], RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "options", "a flow of");
  }
  rdpp_adam *adam;
  check(rdpp_adam_new(0.9, 0.999, 1e-8, &adam), "new Adam");
  check(rdpp_adam_add(adam, m, 0.001), "Adam group");
  check(rdpp_adam_set_penalty(adam, 0, 1e-5), "penalty");
  rdpp_tensor f[RDPP_SCALES], normal[RDPP_SCALES], z[RDPP_SCALES], log_det[RDPP_SCALES], back[RDPP_SCALES];
  double losses[2];
  check(rdpp_teacher(teacher, x, f), "teacher");
  for (int i = 0; i < 2; i++) {
    rdpp_tensor loss;
    check(rdpp_fastflow_normalise(m, f, normal), "layer norm");
    check(rdpp_fastflow(m, normal, z, log_det), "flow");
    check(rdpp_fastflow_inverse(m, z, back), "inverse flow");
    check(rdpp_loss_flow(z, log_det, &loss), "likelihood");
    check(rdpp_backward(loss), "backward");
    check(rdpp_adam_step(adam), "step");
    check(rdpp_scalars(&loss, 1, &losses[i]), "scalars");
    rdpp_tensor_free(loss);
    free_all(normal), free_all(z), free_all(log_det), free_all(back);
  }
  if (!(losses[1] < losses[0])) {
    fprintf(stderr, "smoke: flow: got a loss of %g after one of %g, want less\n", losses[1], losses[0]);
    exit(1);
  }
  refused(rdpp_fastflow(other, f, z, log_det), "wrong network", "a flow is needed");
  check(rdpp_module_train(m, 0), "eval mode");
  const rdpp_module *of[] = {teacher, m};
  const rdpp_predictor_options how = {.flow = {4, 0, 0}};
  rdpp_predictor *predictor, *nobody = NULL;
  check(rdpp_predictor_new(RDPP_FLOWS, of, 2, &how, &predictor), "new predictor");
  refused(rdpp_predictor_new(RDPP_FLOWS, of, 1, &how, &nobody), "modules", "a teacher and a flow");
  rdpp_tensor map, score;
  float scores[B];
  check(rdpp_predict(predictor, x, &map, &score), "predict");
  check(rdpp_tensor_read(score, RDPP_FLOAT32, scores, B), "read");
  if (!(scores[0] > 0 && scores[0] <= 1) || none || nobody) {
    fprintf(stderr, "smoke: flow: got a score of %g, want 0 to 1\n", scores[0]);
    exit(1);
  }
  free_all(f);
  rdpp_tensor_free(map);
  rdpp_tensor_free(score);
  rdpp_predictor_free(predictor);
  rdpp_adam_free(adam);
  rdpp_module_free(m);
}

/* CSFlow: an update of its flow over three sizes, its way back, and predictions before and after its release. */
static void cross(const rdpp_module *other, rdpp_tensor x) {
  enum { C = 256 };
  const rdpp_cross_flow_options options = {C, 2, 8, 3}, flat = {C, 2, 8, 0};
  rdpp_module *teacher, *m, *none = NULL;
  check(rdpp_module_new(RDPP_TEACHER, "resnet18", RDPP_FLOAT32, RDPP_CPU, 7, RDPP_CHANNELS_LAST, &teacher), "teacher");
  check(rdpp_cross_flow_new(&options, RDPP_FLOAT32, RDPP_CPU, 3, RDPP_CHANNELS_LAST, &m), "new cross-scale flow");
  refused(rdpp_cross_flow_new(NULL, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "no options", "needs options");
  refused(rdpp_cross_flow_new(&flat, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "clamp", "a clamp of 0");
  rdpp_adam *adam;
  check(rdpp_adam_new(0.9, 0.999, 1e-4, &adam), "new Adam");
  check(rdpp_adam_add(adam, m, 0.001), "Adam group");
  check(rdpp_adam_set_clip(adam, 1), "clip");
  rdpp_tensor y[RDPP_SCALES], z[RDPP_SCALES], back[RDPP_SCALES], log_det;
  double losses[2];
  check(rdpp_pyramid(teacher, x, y), "pyramid");
  for (int i = 0; i < 2; i++) {
    rdpp_tensor loss;
    check(rdpp_cross_flow(m, y, z, &log_det), "cross-scale flow");
    check(rdpp_cross_flow_inverse(m, z, back), "inverse flow");
    check(rdpp_loss_cross_flow(z, log_det, &loss), "likelihood");
    check(rdpp_backward(loss), "backward");
    check(rdpp_adam_step(adam), "step");
    check(rdpp_scalars(&loss, 1, &losses[i]), "scalars");
    rdpp_tensor_free(loss);
    rdpp_tensor_free(log_det);
    free_all(z), free_all(back);
  }
  if (!(losses[1] < losses[0])) {
    fprintf(stderr, "smoke: cross-scale flow: got a loss of %g after one of %g, want less\n", losses[1], losses[0]);
    exit(1);
  }
  refused(rdpp_cross_flow(other, y, z, &log_det), "wrong network", "a cross-scale flow is needed");
  rdpp_tensor twice[RDPP_SCALES] = {y[0], y[0], y[2]};
  refused(rdpp_cross_flow(m, twice, z, &log_det), "sizes", "must be half of");

  check(rdpp_module_train(m, 0), "eval mode");
  const rdpp_module *of[] = {teacher, m};
  const rdpp_predictor_options how = {.cross = {4, 1, 0}};
  rdpp_predictor *predictor, *nobody = NULL;
  check(rdpp_predictor_new(RDPP_CROSS_SCALES, of, 2, &how, &predictor), "new predictor");
  refused(rdpp_predictor_new(RDPP_CROSS_SCALES, of, 1, &how, &nobody), "modules", "a teacher and a cross-scale flow");
  float scores[3][B];
  for (int i = 0; i < 3; i++) {
    rdpp_tensor map, score;
    check(rdpp_predict(predictor, x, &map, &score), "predict");
    check(rdpp_tensor_read(score, RDPP_FLOAT32, scores[i], B), "read");
    rdpp_tensor_free(map);
    rdpp_tensor_free(score);
    if (i > 0) continue;
    check(rdpp_module_release(teacher), "release");
    check(rdpp_module_release(m), "release");
  }
  if (!(scores[0][0] > 0) || memcmp(scores[0], scores[1], sizeof *scores) ||
      memcmp(scores[0], scores[2], sizeof *scores) || none || nobody) {
    fprintf(stderr, "smoke: cross-scale flow: got scores %g, and %g and %g released, want one\n", scores[0][0],
            scores[1][0], scores[2][0]);
    exit(1);
  }
  free_all(y);
  rdpp_predictor_free(predictor);
  rdpp_adam_free(adam);
  rdpp_module_free(m);
  rdpp_module_free(teacher);
}

/* CFA: a bank of clusters, an update of the descriptor and of the radius, and predictions before and after its release.
 */
static void spheres(const rdpp_module *other, rdpp_tensor x) {
  enum { D = 12, SIDE = S / 4, POINTS = SIDE * SIDE, ROWS = 20 };
  const rdpp_descriptor_options options = {D, ROWS, 0.1, 0}, empty = {D, 0, 0.1, 0}, odd = {D, ROWS, NAN, 0};
  rdpp_module *teacher, *m, *none = NULL;
  check(rdpp_module_new(RDPP_TEACHER, "resnet18", RDPP_FLOAT32, RDPP_CPU, 7, RDPP_CHANNELS_LAST, &teacher), "teacher");
  check(rdpp_descriptor_new("resnet18", &options, RDPP_FLOAT32, RDPP_CPU, 3, RDPP_CHANNELS_LAST, &m), "descriptor");
  refused(rdpp_descriptor_new("resnet18", NULL, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "no options", "needs options");
  refused(rdpp_descriptor_new("resnet18", &empty, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "no rows", "a bank of 0 rows");
  refused(rdpp_descriptor_new("resnet18", &odd, RDPP_FLOAT32, RDPP_CPU, 3, 0, &none), "radius", "a radius of nan");
  rdpp_tensor f[RDPP_SCALES], phi, points, centres;
  check(rdpp_teacher(teacher, x, f), "teacher");
  check(rdpp_descriptor(m, f, &phi), "descriptor");
  static float described[B * POINTS * D], rows[ROWS * D];
  const int64_t shape[] = {POINTS, D};
  check(rdpp_tensor_read(phi, RDPP_FLOAT32, described, B * POINTS * D), "read");
  check(rdpp_tensor_new(RDPP_FLOAT32, described, shape, 2, &points), "new tensor");
  rdpp_clusters *clusters, *no_clusters = NULL;
  check(rdpp_clusters_new(points, ROWS, 50, 3, &clusters), "new clusters");
  refused(rdpp_clusters_centres(clusters, &centres), "centres", "not found yet");
  for (int32_t done = 0; !done;) check(rdpp_clusters_step(clusters, &done), "k-means");
  check(rdpp_clusters_centres(clusters, &centres), "centres");
  rdpp_clusters_free(clusters);
  refused(rdpp_clusters_new(points, POINTS + 1, 50, 3, &no_clusters), "clusters", "257 clusters of 256 points");
  refused(rdpp_clusters_new(x, 2, 50, 3, &no_clusters), "points", "must be rows");
  refused(rdpp_clusters_step(no_clusters, &(int32_t){0}), "no clusters", "NULL or closed");
  check(rdpp_tensor_read(centres, RDPP_FLOAT32, rows, ROWS * D), "read");
  int64_t n;
  check(rdpp_module_state_len(m, &n), "state");
  for (int64_t i = 0; i < n; i++) {
    const char *name;
    rdpp_tensor t;
    int32_t trainable;
    check(rdpp_module_state(m, i, &name, &t, &trainable), "state");
    if (strcmp(name, "centres") == 0) check(rdpp_tensor_write(t, RDPP_FLOAT32, rows, ROWS * D), "write");
    rdpp_tensor_free(t);
  }
  rdpp_tensor_free(phi);

  rdpp_adam *adam;
  rdpp_tensor greatest;
  check(rdpp_adam_new(0.9, 0.999, 1e-8, &adam), "new Adam");
  check(rdpp_adam_add(adam, m, 1e-5), "Adam group");
  check(rdpp_adam_greatest(adam, 0, 0, &greatest), "greatest averages");
  if (greatest != NULL) {
    fprintf(stderr, "smoke: spheres: got AMSGrad's averages of a group that has none\n");
    exit(1);
  }
  check(rdpp_adam_set_decay_of_all(adam, 0, 5e-4), "decay");
  check(rdpp_adam_set_amsgrad(adam, 0), "AMSGrad");
  refused(rdpp_adam_set_amsgrad(adam, 1), "no group", "");
  refused(rdpp_adam_greatest(adam, 0, 9, &greatest), "no parameter", "");
  const rdpp_sphere_loss_options how = {3, 3, 0.1, 1e-3, 1 << 12}, many = {ROWS, 1, 0.1, 1e-3, 1 << 12};
  double losses[2];
  for (int i = 0; i < 2; i++) {
    rdpp_tensor terms[2], loss;
    const double weights[2] = {1, 1};
    check(rdpp_descriptor(m, f, &phi), "descriptor");
    check(rdpp_loss_spheres(m, phi, &how, &terms[0], &terms[1]), "loss");
    refused(rdpp_loss_spheres(m, phi, &many, &terms[0], &terms[1]), "rows", "the nearest 21 of 20");
    refused(rdpp_loss_spheres(m, phi, NULL, &terms[0], &terms[1]), "no options", "needs options");
    refused(rdpp_loss_spheres(m, points, &how, &terms[0], &terms[1]), "no descriptors", "B x H x W x D");
    check(rdpp_weighted_sum(terms, weights, 2, &loss), "sum");
    check(rdpp_backward(loss), "backward");
    check(rdpp_adam_step(adam), "step");
    check(rdpp_scalars(&loss, 1, &losses[i]), "scalars");
    rdpp_tensor made[] = {phi, terms[0], terms[1], loss};
    for (size_t j = 0; j < sizeof made / sizeof *made; j++) rdpp_tensor_free(made[j]);
  }
  if (!(losses[1] < losses[0])) {
    fprintf(stderr, "smoke: spheres: got a loss of %g after one of %g, want less\n", losses[1], losses[0]);
    exit(1);
  }
  check(rdpp_adam_greatest(adam, 0, 0, &greatest), "greatest averages");
  rdpp_tensor_free(greatest);
  refused(rdpp_descriptor(other, f, &phi), "wrong network", "a descriptor is needed");

  check(rdpp_module_train(m, 0), "eval mode");
  const rdpp_module *of[] = {teacher, m};
  const rdpp_predictor_options asked = {.sphere = {4, 3, 1 << 12}};
  rdpp_predictor *predictor, *nobody = NULL;
  check(rdpp_predictor_new(RDPP_SPHERES, of, 2, &asked, &predictor), "new predictor");
  refused(rdpp_predictor_new(RDPP_SPHERES, of, 1, &asked, &nobody), "modules", "a teacher and a descriptor");
  float scores[3][B];
  for (int i = 0; i < 3; i++) {
    rdpp_tensor map, score;
    check(rdpp_predict(predictor, x, &map, &score), "predict");
    check(rdpp_tensor_read(score, RDPP_FLOAT32, scores[i], B), "read");
    rdpp_tensor_free(map);
    rdpp_tensor_free(score);
    if (i > 0) continue;
    check(rdpp_module_release(teacher), "release");
    check(rdpp_module_release(m), "release");
  }
  if (!(scores[0][0] > 0) || memcmp(scores[0], scores[1], sizeof *scores) ||
      memcmp(scores[0], scores[2], sizeof *scores) || none || nobody) {
    fprintf(stderr, "smoke: spheres: got scores %g, and %g and %g released, want one\n", scores[0][0], scores[1][0],
            scores[2][0]);
    exit(1);
  }
  free_all(f);
  rdpp_tensor_free(points);
  rdpp_tensor_free(centres);
  rdpp_predictor_free(predictor);
  rdpp_adam_free(adam);
  rdpp_module_free(m);
  rdpp_module_free(teacher);
}

int main(void) {
  const char *version;
  check(rdpp_libtorch_version(&version), "version");
  check(rdpp_set_threads(2), "threads");

  rdpp_module *net[4];
  for (int kind = RDPP_TEACHER; kind <= RDPP_STUDENT; kind++) {
    check(rdpp_module_new(kind, "resnet18", RDPP_FLOAT32, RDPP_CPU, 7, RDPP_CHANNELS_LAST, &net[kind]), "new network");
  }
  rdpp_adam *adam;
  check(rdpp_adam_new(0.5, 0.999, 1e-8, &adam), "new Adam");
  for (int kind = RDPP_PROJECTION; kind <= RDPP_STUDENT; kind++) check(rdpp_adam_add(adam, net[kind], 0.005), "group");

  static float pixels[N];
  for (int i = 0; i < N; i++) pixels[i] = (float)((i * 7919) % 256) / 128 - 1;
  int64_t shape[] = {B, 3, S, S};
  rdpp_tensor x;
  check(rdpp_tensor_new(RDPP_FLOAT32, pixels, shape, 4, &x), "new tensor");

  rdpp_tensor f[RDPP_SCALES], clean[RDPP_SCALES], noisy[RDPP_SCALES], p[RDPP_SCALES], pc[RDPP_SCALES], pn[RDPP_SCALES],
      g[RDPP_SCALES], z, terms[4], total;
  check(rdpp_teacher_pair(net[RDPP_TEACHER], x, x, f), "teacher");
  check(rdpp_split(f, B, clean, noisy), "split");
  check(rdpp_projection(net[RDPP_PROJECTION], f, p), "projection");
  check(rdpp_split(p, B, pc, pn), "split");
  check(rdpp_bottleneck(net[RDPP_BOTTLENECK], pc, &z), "bottleneck");
  check(rdpp_student(net[RDPP_STUDENT], z, g), "student");
  rdpp_sinkhorn_options options = {2, 0.05, 0, 1e7, 0.95, 1};
  int64_t shuffle[B] = {1, 0};
  double weights[4] = {1, 0.18, 0.0018, 0.018}, values[4];
  check(rdpp_loss_kd(clean, g, 0, 0.9, 0.5, NULL, &terms[0]), "L_KD");
  check(rdpp_loss_ssot(pc, shuffle, B, RDPP_SSOT_BATCH, &options, &terms[1]), "L_SSOT");
  check(rdpp_loss_recon(pn, pc, &terms[2]), "L_Recon");
  check(rdpp_loss_contrast(noisy, pc, 0.5, &terms[3]), "L_Con");
  check(rdpp_weighted_sum(terms, weights, 4, &total), "sum");
  check(rdpp_backward(total), "backward");
  check(rdpp_adam_step(adam), "step");
  check(rdpp_scalars(terms, 4, values), "scalars");
  if (!(values[0] > 0 && values[0] < 6)) {
    fprintf(stderr, "smoke: L_KD: got %g, want a sum of three 1 - cos\n", values[0]);
    return 1;
  }

  for (int kind = 0; kind < 4; kind++) check(rdpp_module_train(net[kind], 0), "eval mode");
  rdpp_tensor map, score;
  const rdpp_map_options how = {4, {0, 1, 2, 1, 0, 1}, {0, 0.05, 0.03, 0, 0, 0.01}};
  const rdpp_module *of[] = {net[0], net[1], net[2], net[3]};
  const rdpp_predictor_options options_of = {how};
  rdpp_predictor *predictor, *nobody = NULL;
  check(rdpp_predictor_new(RDPP_STUDENTS, of, 4, &options_of, &predictor), "new predictor");
  check(rdpp_predict(predictor, x, &map, &score), "predict");
  static float maps[B * S * S];
  float scores[B], highest = 0;
  check(rdpp_tensor_read(map, RDPP_FLOAT32, maps, B * S * S), "read");
  check(rdpp_tensor_read(score, RDPP_FLOAT32, scores, B), "read");
  for (int i = 0; i < S * S; i++) highest = maps[i] > highest ? maps[i] : highest;
  if (highest != scores[0]) {
    fprintf(stderr, "smoke: score: got %g, want the map's maximum %g\n", scores[0], highest);
    return 1;
  }

  refused(rdpp_predictor_new(9, of, 4, &options_of, &nobody), "method", "unknown method 9");
  refused(rdpp_predictor_new(RDPP_STUDENTS, of, 3, &options_of, &nobody), "modules", "four networks");
  const rdpp_module *swapped[] = {net[3], net[1], net[2], net[0]}, *missing[] = {net[0], net[1], NULL, net[3]};
  refused(rdpp_predictor_new(RDPP_STUDENTS, swapped, 4, &options_of, &nobody), "modules", "a teacher is needed");
  refused(rdpp_predictor_new(RDPP_STUDENTS, missing, 4, &options_of, &nobody), "no module", "closed");
  refused(rdpp_predict(NULL, x, &map, &score), "no predictor", "closed");
  refused(rdpp_predict(predictor, score, &map, &score), "no images", "B x 3 x S x S");
  if (nobody != NULL) return 1;

  /* A map of 2^48 values, and images of 2^47 bytes that are never read. */
  rdpp_tensor raw, smoothed;
  failed(RDPP_OUT_OF_MEMORY, rdpp_anomaly_map(f, g, 1 << 24, &how, &raw, &smoothed), "large map", "memory");
  static const uint8_t pixel;
  const float one[3] = {1, 1, 1};
  failed(RDPP_OUT_OF_MEMORY, rdpp_images(&pixel, INT64_C(1) << 34, S, one, one, RDPP_CPU, RDPP_FLOAT32, &raw),
         "many images", "memory");
  int64_t memory;
  int32_t yes;
  failed(RDPP_DEVICE_FAILED, rdpp_device_memory(99, &memory, &memory), "device", "CUDA device 99");
  failed(RDPP_DEVICE_FAILED, rdpp_has_bfloat16(99, &yes), "device", "CUDA device 99");
  failed(RDPP_DEVICE_FAILED, rdpp_tensor_to(x, 99, RDPP_FLOAT32, &raw), "device", "CUDA device 99");

  rdpp_module *none = NULL;
  refused(rdpp_module_new(RDPP_TEACHER, "resnet19", RDPP_FLOAT32, RDPP_CPU, 0, 0, &none), "arch", "resnet19");
  failed(RDPP_DEVICE_FAILED, rdpp_module_new(RDPP_TEACHER, "resnet18", RDPP_FLOAT32, 99, 0, 0, &none), "device",
         "CUDA device 99");
  rdpp_tensor coarsest[RDPP_SCALES] = {NULL, NULL, pc[2]}, nothing[RDPP_SCALES] = {NULL, NULL, NULL}, unused;
  refused(rdpp_loss_recon(pn, coarsest, &unused), "other scales", "not of the same scales");
  refused(rdpp_loss_recon(nothing, nothing, &unused), "no scale", "no scale");
  refused(rdpp_module_new(9, "resnet18", RDPP_FLOAT32, RDPP_CPU, 0, 0, &none), "kind", "unknown kind");
  refused(rdpp_teacher(net[RDPP_STUDENT], x, f), "wrong network", "a teacher is needed");
  refused(rdpp_teacher(NULL, x, f), "no network", "closed");
  refused(rdpp_tensor_read(NULL, RDPP_FLOAT32, maps, 1), "no tensor", "closed");
  refused(rdpp_tensor_read(score, RDPP_FLOAT32, scores, 1), "short read", "2 elements");
  refused(rdpp_student(net[RDPP_STUDENT], x, g), "wrong shape", "channels");
  pretrain();
  script(score);
  remember(net[RDPP_TEACHER], net[RDPP_STUDENT], x);
  flow(net[RDPP_TEACHER], net[RDPP_STUDENT], x);
  cross(net[RDPP_STUDENT], x);
  spheres(net[RDPP_STUDENT], x);
  refused(rdpp_adam_state(adam, 9, 0, &z, &z, &shape[0]), "no group", "");
  if (none != NULL) return 1;

  rdpp_tensor *features[] = {f, clean, noisy, p, pc, pn, g};
  for (size_t i = 0; i < sizeof features / sizeof *features; i++) free_all(features[i]);
  rdpp_tensor single[] = {z, total, map, score, terms[0], terms[1], terms[2], terms[3]};
  for (size_t i = 0; i < sizeof single / sizeof *single; i++) rdpp_tensor_free(single[i]);

  /* Networks that keep one form of their weights predict what they did before, and take nothing else. */
  rdpp_tensor again, same, smaller;
  float seen[B];
  for (int kind = 0; kind < 4; kind++) check(rdpp_module_release(net[kind]), "release");
  for (int i = 0; i < 2; i++) {
    check(rdpp_predict(predictor, x, &again, &same), "predict");
    check(rdpp_tensor_read(same, RDPP_FLOAT32, seen, B), "read");
    if (memcmp(seen, scores, sizeof seen) != 0) {
      fprintf(stderr, "smoke: a released network's score: got %g, want %g\n", seen[0], scores[0]);
      return 1;
    }
    rdpp_tensor_free(again);
    rdpp_tensor_free(same);
  }
  int64_t half[] = {1, 3, S / 2, S / 2}, entries;
  check(rdpp_tensor_new(RDPP_FLOAT32, pixels, half, 4, &smaller), "new tensor");
  refused(rdpp_predict(predictor, smaller, &again, &same), "another size", "released");
  refused(rdpp_module_state_len(net[RDPP_STUDENT], &entries), "state", "released");
  refused(rdpp_module_train(net[RDPP_STUDENT], 1), "training", "released");
  rdpp_tensor_free(smaller);

  for (int kind = 0; kind < 4; kind++) rdpp_module_free(net[kind]);
  check(rdpp_predict(predictor, x, &map, &score), "predict with networks that were freed");
  check(rdpp_tensor_read(score, RDPP_FLOAT32, scores, B), "read");
  if (highest != scores[0]) {
    fprintf(stderr, "smoke: with networks that were freed: got score %g, want %g\n", scores[0], highest);
    return 1;
  }
  rdpp_tensor last[] = {x, map, score};
  for (size_t i = 0; i < sizeof last / sizeof *last; i++) rdpp_tensor_free(last[i]);
  rdpp_predictor_free(predictor);
  rdpp_predictor_free(NULL);
  rdpp_adam_free(adam);
  rdpp_tensor_free(NULL);
  rdpp_error_free(NULL);
  printf("smoke: the C boundary works with libtorch %s\n", version);
  return 0;
}
