/* The C boundary of rdpp: everything Go asks of libtorch beyond plain tensor handles.
 *
 * Dimension letters, here and in csrc: B batch, C channels, H height, W width, S side of the square
 * network input, K = RDPP_SCALES feature scales, e block expansion (1 for resnet18/34, else 4),
 * P problems, N and M points, D dimensions (Sinkhorn).
 *
 * Every function that can fail returns NULL on success or an error that the caller owns and frees with
 * rdpp_error_free. Results go through out-parameters, which are set only on success. Only frees return
 * void, and they accept NULL. Nothing is ever thrown across this boundary.
 *
 * Functions may be called from any thread, but a module, a predictor, an optimiser or a tensor must not be
 * used by two threads at once, nor a module by two predictors. Grad mode and thread count are set inside
 * each call that computes; work happens where its tensors are. Of the process they change what
 * csrc/process.cpp sets, and in calls alone libtorch's allocator for the CPU (csrc/allocator.h). */
#ifndef RDPP_H
#define RDPP_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RDPP_SCALES 3
#define RDPP_TERMS (2 * RDPP_SCALES) /* of an anomaly map */
#define RDPP_CPU (-1)                /* a device: RDPP_CPU, or the CUDA device's number from 0 */

/* Kinds of errors. */
enum {
  RDPP_BAD_ARGUMENT = 1, /* a handle, shape, number or text that the function does not take */
  RDPP_OUT_OF_MEMORY,    /* of the processor or of a device; what was asked for was not done, less may be */
  RDPP_DEVICE_FAILED,    /* the device is not there, or it or its driver reports an error, often for all that follows */
  RDPP_UNSUPPORTED,      /* this libtorch, build or device has no such operation */
  RDPP_PEER_LOST,        /* another process of a group has ended, or cannot be reached */
  RDPP_INTERNAL          /* anything else, such as a bug or a file that cannot be written */
};

/* message: one line of text. */
typedef const struct rdpp_failure {
  int32_t code;
  const char *message;
} *rdpp_error;

typedef void *rdpp_tensor; /* an at::Tensor*, interchangeable with gotorch's handle */
typedef struct rdpp_module rdpp_module;
typedef struct rdpp_predictor rdpp_predictor;
typedef struct rdpp_adam rdpp_adam;
typedef struct rdpp_coreset rdpp_coreset;
typedef struct rdpp_clusters rdpp_clusters;
typedef struct rdpp_group rdpp_group;

/* Element types, numbered as c10::ScalarType. */
enum { RDPP_UINT8 = 0, RDPP_INT64 = 4, RDPP_FLOAT16 = 5, RDPP_FLOAT32 = 6, RDPP_FLOAT64 = 7, RDPP_BFLOAT16 = 15 };

enum {
  RDPP_TEACHER,
  RDPP_PROJECTION,
  RDPP_BOTTLENECK,
  RDPP_STUDENT,
  RDPP_HEAD,
  RDPP_BANK,
  RDPP_FASTFLOW,
  RDPP_CROSS_FLOW,
  RDPP_DESCRIPTOR
};

/* What a teacher learns: the class of a picture, the class of every position, which pictures belong together. */
enum { RDPP_CLASS, RDPP_DENSE, RDPP_PAIR };

/* Readings of L_SSOT: one point per image; the batch as one point cloud; not computed. */
enum { RDPP_SSOT_PAIRWISE, RDPP_SSOT_BATCH, RDPP_SSOT_OFF };

void rdpp_error_free(rdpp_error e);

/* Library and device */

/* The name that torch asks for, and the library of another interface does not have. So programs are neither linked nor
 * started with such a one, which would take their arguments for others. The digits are those of all declarations here;
 * torch's TestInterface tells them. */
#define RDPP_INTERFACE rdpp_interface_71a28d8e
extern const char RDPP_INTERFACE;

/* version: libtorch's own, such as "2.6.0"; a static string. */
rdpp_error rdpp_libtorch_version(const char **version);
rdpp_error rdpp_cuda_device_count(int32_t *count);
/* *yes: whether the device has instructions for products of bfloat16 (AVX512_BF16 or AMX; CUDA from compute capability
 * 8 on). Elsewhere libtorch computes them too, slowly. */
rdpp_error rdpp_has_bfloat16(int32_t device, int32_t *yes);
/* Threads that one operation on the CPU may use, for all calls from now on; 1 to 1024. */
rdpp_error rdpp_set_threads(int32_t n);
/* Whether other programs, or this one's other threads, take processors that what computes waits for. As long as they do
 * its threads wait for each other asleep, not spinning, unless the environment has OMP_WAIT_POLICY or GOMP_SPINCOUNT.
 */
rdpp_error rdpp_contended(int32_t *yes);
/* tf32 != 0: products of float32 on GPUs may be rounded to TF32. deterministic != 0: only operations that give the same
 * bits every time, an error where there is none. For the whole process; without a call neither holds. */
rdpp_error rdpp_set_arithmetic(int32_t tf32, int32_t deterministic);
/* Bytes of device memory in use and at most in use so far; both 0 for RDPP_CPU. */
rdpp_error rdpp_device_memory(int32_t device, int64_t *used, int64_t *peak);
/* Bytes of this process's memory in blocks of 128 KiB and more that this library's tensors and oneDNN's forms of
 * weights have now; those of 2 MiB and more count as whole multiples of that. */
rdpp_error rdpp_host_memory(int64_t *bytes);

/* Tensors */

/* A tensor on the CPU with a copy of row-major data of the given shape. */
rdpp_error rdpp_tensor_new(int32_t dtype, const void *data, const int64_t *shape, int64_t dims, rdpp_tensor *out);
void rdpp_tensor_free(rdpp_tensor t);
rdpp_error rdpp_tensor_to(rdpp_tensor t, int32_t device, int32_t dtype, rdpp_tensor *out);
/* Copies all of t, row-major, as dtype into dst, which holds n elements; n must be t's. */
rdpp_error rdpp_tensor_read(rdpp_tensor t, int32_t dtype, void *dst, int64_t n);
/* Copies n row-major elements of dtype from src into t, converting; outside autograd. */
rdpp_error rdpp_tensor_write(rdpp_tensor t, int32_t dtype, const void *src, int64_t n);
rdpp_error rdpp_tensor_require_grad(rdpp_tensor t);
/* The gradient gathered so far; *out is NULL where there is none. */
rdpp_error rdpp_tensor_grad(rdpp_tensor t, rdpp_tensor *out);
/* Replaces t's gradient by a copy of grad; NULL clears it. */
rdpp_error rdpp_tensor_set_grad(rdpp_tensor t, rdpp_tensor grad);
/* Rows [0, B) and [B, ...) of each of the K tensors, as views. */
rdpp_error rdpp_split(const rdpp_tensor x[RDPP_SCALES], int64_t B, rdpp_tensor head[RDPP_SCALES],
                      rdpp_tensor tail[RDPP_SCALES]);
/* The way back: the rows of head and then those of tail, as copies. */
rdpp_error rdpp_join(const rdpp_tensor head[RDPP_SCALES], const rdpp_tensor tail[RDPP_SCALES],
                     rdpp_tensor x[RDPP_SCALES]);

/* pixels: B x S x S x 3 bytes, RGB -> x: B x 3 x S x S of dtype on device, (pixel / 255 - mean) / std. */
rdpp_error rdpp_images(const uint8_t *pixels, int64_t B, int64_t S, const float mean[3], const float std[3],
                       int32_t device, int32_t dtype, rdpp_tensor *x);

/* Networks. arch: resnet18, resnet34, resnet50 or wide_resnet50_2; of a frozen teacher efficientnet_b5 too. */

enum {
  RDPP_CHANNELS_LAST = 1, /* the fast memory layout, instead of the one in which the released code computes */
  RDPP_BLANK = 2,         /* parameters of zero, to be written over */
  RDPP_TRAINABLE = 4,     /* a teacher that learns, like the other networks, instead of a frozen one */
  RDPP_COARSEST = 8,      /* a projection of the coarsest scale alone, that passes the others on */
};

/* A network with fresh parameters drawn from seed, in training mode (a frozen teacher always in eval mode). flags: a
 * sum of the above. */
rdpp_error rdpp_module_new(int32_t kind, const char *arch, int32_t dtype, int32_t device, uint64_t seed, int32_t flags,
                           rdpp_module **out);
/* The heads for an objective, one per scale. outputs: classes, or dimensions of the embedding (RDPP_PAIR). */
rdpp_error rdpp_head_new(int32_t objective, const char *arch, int64_t outputs, int32_t dtype, int32_t device,
                         uint64_t seed, rdpp_module **out);
void rdpp_module_free(rdpp_module *m);
/* on != 0: batch statistics, else running ones; a frozen teacher stays in eval mode. Eval mode also prepares the
 * network for speed: to change its state, call with on != 0 first or call again afterwards. */
rdpp_error rdpp_module_train(rdpp_module *m, int32_t on);
/* In eval mode, for a network that will predict alone, images of one size and type in batches of any: it lets go of its
 * weights as soon as it has the form of them that predicts fastest. From then on it has no state, no training mode and
 * no gradients, and another size or type is RDPP_BAD_ARGUMENT. */
rdpp_error rdpp_module_release(rdpp_module *m);
/* The state dict: parameters and buffers under the released names, in a fixed order. */
rdpp_error rdpp_module_state_len(const rdpp_module *m, int64_t *n);
/* name lives as long as the module. *out shares the module's memory. *trainable: 0 for buffers and for a frozen
 * teacher. */
rdpp_error rdpp_module_state(const rdpp_module *m, int64_t i, const char **name, rdpp_tensor *out, int32_t *trainable);

/* The state of into becomes (1 - weight) * into + weight * from, that of running statistics too; counts are copied.
 * Both are of one kind and architecture. */
rdpp_error rdpp_module_average(rdpp_module *into, const rdpp_module *from, double weight);

/* Makes a trainable teacher blind to the level of light, a constant added to all pixels before they are divided by std:
 * changes conv1, and has to be repeated after every update. */
rdpp_error rdpp_teacher_ignore_level(rdpp_module *m, const double std[3]);
/* x: B x 3 x S x S, normalised -> f[k]: B x 64e*2^k x S/(4*2^k) x S/(4*2^k), of efficientnet_b5 B x 64, 176 and 304 x
 * S/(8*2^k) x S/(8*2^k); outside autograd where the teacher is frozen or in eval mode. x of bfloat16 in a float32
 * teacher: mixed precision, f is bfloat16 too. */
rdpp_error rdpp_teacher(const rdpp_module *m, rdpp_tensor x, rdpp_tensor f[RDPP_SCALES]);
/* The same for clean and noisy images (B and B' x 3 x S x S) in one pass: f of B + B' rows, the clean ones first. */
rdpp_error rdpp_teacher_pair(const rdpp_module *m, rdpp_tensor clean, rdpp_tensor noisy, rdpp_tensor f[RDPP_SCALES]);
/* f -> p, same shapes. */
rdpp_error rdpp_projection(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor p[RDPP_SCALES]);
/* p -> z: B x 512e x S/32 x S/32. */
rdpp_error rdpp_bottleneck(const rdpp_module *m, const rdpp_tensor p[RDPP_SCALES], rdpp_tensor *z);
/* z -> g, the shapes of f. */
rdpp_error rdpp_student(const rdpp_module *m, rdpp_tensor z, rdpp_tensor g[RDPP_SCALES]);

/* f_k: features of scale k in 0..K-1, B x C x H x W -> y: logits B x N (RDPP_CLASS) or B x N x H x W (RDPP_DENSE), or
 * embeddings of length 1, B x D (RDPP_PAIR); float32 also where f_k is bfloat16. */
rdpp_error rdpp_head(const rdpp_module *m, int64_t k, rdpp_tensor f_k, rdpp_tensor *y);

/* Losses: each a scalar tensor. Those of a projection are of the scales whose tensors are not NULL. */

/* L_KD. per_position == 0: cosines of whole feature maps (released), else per position (Eq. 1). Positions whose
 * distance 1 - cos is below the batch's mean plus easy_below deviations, per scale, get only 1 - easy_cut of their
 * gradient; 0: all of it, as released. group: the processes that the batch is dealt out to, for that mean and
 * deviation; the loss is of this one's rows. NULL: the batch is whole. */
rdpp_error rdpp_loss_kd(const rdpp_tensor f[RDPP_SCALES], const rdpp_tensor g[RDPP_SCALES], int32_t per_position,
                        double easy_cut, double easy_below, rdpp_group *group, rdpp_tensor *out);
/* L_Recon of projected noisy and projected clean features. */
rdpp_error rdpp_loss_recon(const rdpp_tensor p_noisy[RDPP_SCALES], const rdpp_tensor p[RDPP_SCALES], rdpp_tensor *out);
/* L_Con of the teacher's noisy and the projected clean features. */
rdpp_error rdpp_loss_contrast(const rdpp_tensor f_noisy[RDPP_SCALES], const rdpp_tensor p[RDPP_SCALES], double margin,
                              rdpp_tensor *out);

typedef struct {
  double p;        /* exponent of the cost |x - y|^p / p: 1 or 2 */
  double blur;     /* finest scale, in units of x */
  double reach;    /* largest transport distance; <= 0: unbounded (balanced) */
  double diameter; /* of the point clouds; <= 0: measured from their bounding box */
  double scaling;  /* ratio of successive scales, in (0, 1) */
  int32_t debias;  /* != 0: subtract the self-transport terms */
} rdpp_sinkhorn_options;

/* L_SSOT of projected clean features against their own rows shuffled by permutation (B entries). */
rdpp_error rdpp_loss_ssot(const rdpp_tensor p[RDPP_SCALES], const int64_t *permutation, int64_t B, int32_t mode,
                          const rdpp_sinkhorn_options *options, rdpp_tensor *out);
/* The divergence of P pairs of weighted point clouds x: P x N x D, a: P x N and y: P x M x D, b: P x M;
 * a, b NULL: uniform. out: P values, differentiable in x and y through the last update. */
rdpp_error rdpp_sinkhorn(rdpp_tensor x, rdpp_tensor y, rdpp_tensor a, rdpp_tensor b,
                         const rdpp_sinkhorn_options *options, rdpp_tensor *out);
/* Cross-entropy of logits, B x N or B x N x H x W, and n labels, B or B x H x W, each in 0..N-1, or -1 to be ignored.
 * smoothing: the share of the target that is spread over all classes. accuracy: share of labels that were told. */
rdpp_error rdpp_loss_class(rdpp_tensor logits, const int64_t *labels, int64_t n, double smoothing, rdpp_tensor *loss,
                           rdpp_tensor *accuracy);
/* NT-Xent of z, B x D, whose rows 2i and 2i + 1 belong together. accuracy: share of rows nearest to their partner. */
rdpp_error rdpp_loss_pair(rdpp_tensor z, double temperature, rdpp_tensor *loss, rdpp_tensor *accuracy);
/* sum of weights[i] * terms[i], n >= 1 scalars. */
rdpp_error rdpp_weighted_sum(const rdpp_tensor *terms, const double *weights, int64_t n, rdpp_tensor *out);
/* The sum of all elements, a scalar. */
rdpp_error rdpp_sum(rdpp_tensor t, rdpp_tensor *out);
rdpp_error rdpp_backward(rdpp_tensor loss);
/* Reads n scalar tensors in one transfer. */
rdpp_error rdpp_scalars(const rdpp_tensor *terms, int64_t n, double *values);

/* Adam over parameter groups, without weight decay until it is set. */

rdpp_error rdpp_adam_new(double beta1, double beta2, double eps, rdpp_adam **out);
void rdpp_adam_free(rdpp_adam *a);
/* Adds the trainable parameters of m as a group. m may be freed before a. */
rdpp_error rdpp_adam_add(rdpp_adam *a, const rdpp_module *m, double learning_rate);
/* Of group `group`, counted from 0 in the order of rdpp_adam_add, from the next step on. */
rdpp_error rdpp_adam_set_rate(rdpp_adam *a, int64_t group, double learning_rate);
/* Decoupled (AdamW): every step also multiplies the group's parameters of more than one dimension, which are neither
 * biases nor batch norms, by 1 - learning_rate * weight_decay. */
rdpp_error rdpp_adam_set_decay(rdpp_adam *a, int64_t group, double weight_decay);
/* The same of all the group's parameters, as torch.optim.AdamW has it. */
rdpp_error rdpp_adam_set_decay_of_all(rdpp_adam *a, int64_t group, double weight_decay);
/* AMSGrad (Reddi et al., ICLR 2018), from the next step on: a step divides by the greatest average of squares that
 * there was instead of the present one. */
rdpp_error rdpp_adam_set_amsgrad(rdpp_adam *a, int64_t group);
/* What torch.optim.Adam calls weight decay: every step adds penalty times each of the group's parameters, of any number
 * of dimensions, to its gradient, after gradients are shortened. */
rdpp_error rdpp_adam_set_penalty(rdpp_adam *a, int64_t group, double penalty);
/* Before every step from now on, gradients longer than length, all groups taken as one vector, are shortened to it; 0:
 * they are left alone. */
rdpp_error rdpp_adam_set_clip(rdpp_adam *a, double length);
/* One update of every parameter that has a gradient; then gradients are cleared. */
rdpp_error rdpp_adam_step(rdpp_adam *a);
/* The moments of parameter i of group `group` (in the order of rdpp_module_state, trainable ones only) and its
 * step count; zero tensors and 0 before its first step. The tensors share the optimiser's memory. */
rdpp_error rdpp_adam_state(rdpp_adam *a, int64_t group, int64_t i, rdpp_tensor *exp_avg, rdpp_tensor *exp_avg_sq,
                           int64_t *step);
/* AMSGrad's greatest averages of that parameter, sharing the optimiser's memory; NULL where the group has none. */
rdpp_error rdpp_adam_greatest(rdpp_adam *a, int64_t group, int64_t i, rdpp_tensor *exp_avg_sq);
rdpp_error rdpp_adam_set_step(rdpp_adam *a, int64_t group, int64_t i, int64_t step);

/* Inference, outside autograd */

/* How a map is made, and a score of it. The map's terms are d = 1 - cos of each of the K scales, then the same of the
 * scales' features averaged over 3x3 positions. */
typedef struct {
  double sigma;               /* of the Gaussian, pixels */
  double weights[RDPP_TERMS]; /* of the sum of terms; 1, 1, 1, 0, 0, 0: the released code's */
  double levels[RDPP_TERMS];  /* above 0: the term is log(1 + d / level); 0: it is d, as released */
  double top;                 /* share of the map's pixels, the highest, whose mean is the score; 0: its maximum */
} rdpp_map_options;

/* f, g -> raw, smoothed: B x S x S, the sum of the upsampled terms and its Gaussian. */
rdpp_error rdpp_anomaly_map(const rdpp_tensor f[RDPP_SCALES], const rdpp_tensor g[RDPP_SCALES], int64_t S,
                            const rdpp_map_options *options, rdpp_tensor *raw, rdpp_tensor *smoothed);

/* How a bank of patches is asked. */
typedef struct {
  double sigma;       /* of the map's Gaussian, pixels */
  int64_t dimensions; /* as of rdpp_patches */
  int32_t of_map;     /* != 0: a score is its map's maximum, instead of the farthest patch's distance */
  int64_t neighbours; /* b of PatchCore's Eq. 7, which weights the score; below 2: it is not weighted */
  int64_t bytes;      /* of distances that are in memory at a time; one row of the bank's are in any case */
} rdpp_bank_options;

/* How a map is made of what the flows of FastFlow give: of m, half the mean of a position's squared z. */
typedef struct {
  double sigma;       /* of the map's Gaussian, pixels; 0: none, as published */
  int32_t likelihood; /* != 0: a position's value is m; else 1 - exp(-m), as published */
  double top;         /* share of the map's pixels, the highest, whose mean is the score; 0: its maximum */
} rdpp_flow_map_options;

/* How maps and scores are made of what a cross-scale flow maps features to. */
typedef struct {
  double sigma;    /* of the map's Gaussian, pixels */
  int32_t product; /* != 0: a map is the product of all scales', instead of the finest one's */
  int32_t of_map;  /* != 0: a score is its map's maximum, instead of half the mean square over all scales */
} rdpp_cross_map_options;

/* How a map is made of descriptors' distances d_1 <= d_2 <= ... from the nearest rows of their bank. */
typedef struct {
  double sigma;  /* of the map's Gaussian, pixels */
  int64_t near;  /* K, rows whose softmin weights the distance of the nearest: d_1 e^-d_1 / (e^-d_1 + ... + e^-d_K) */
  int64_t bytes; /* of distances that are in memory at a time; those of one position are in any case */
} rdpp_sphere_map_options;

/* Methods, by what they compare images with. */
enum {
  RDPP_STUDENTS, /* RD++ and RD. Modules: teacher, projection or NULL (RD), bottleneck, student. Scores: of map.top */
  RDPP_PATCHES, /* PatchCore. Modules: teacher, bank. Maps: each patch's distance to the bank, stretched and smoothed */
  RDPP_FLOWS,   /* FastFlow. Modules: teacher, flow. Maps: how unlikely each position is, the mean over scales */
  RDPP_CROSS_SCALES, /* CSFlow. Modules: teacher, cross-scale flow. Maps: half the mean square of a position */
  RDPP_SPHERES       /* CFA. Modules: teacher, descriptor. Maps: distance from the bank. Scores: their maxima */
};

typedef struct {
  rdpp_map_options map;           /* of RDPP_STUDENTS */
  rdpp_bank_options bank;         /* of RDPP_PATCHES */
  rdpp_flow_map_options flow;     /* of RDPP_FLOWS */
  rdpp_cross_map_options cross;   /* of RDPP_CROSS_SCALES */
  rdpp_sphere_map_options sphere; /* of RDPP_SPHERES */
} rdpp_predictor_options;

/* A way from images to maps and scores, by n modules of the method's kinds, in its order. They may be freed first, and
 * are in eval mode whenever it runs. It follows changes of their state after the next rdpp_module_train. What it
 * prepares for speed, CUDA graphs, is its own and goes with it. */
rdpp_error rdpp_predictor_new(int32_t method, const rdpp_module *const *modules, int64_t n,
                              const rdpp_predictor_options *options, rdpp_predictor **out);
void rdpp_predictor_free(rdpp_predictor *p);
/* x: B x 3 x S x S, normalised -> map: B x S x S and score: B. */
rdpp_error rdpp_predict(rdpp_predictor *p, rdpp_tensor x, rdpp_tensor *map, rdpp_tensor *score);

/* PatchCore, outside autograd. D: dimensions of a patch, H and W here those of layer2's features, S/8. */

/* f -> patches: B x H x W x D, float32 (float64 for float64): of layer2's and layer3's features the means over 3x3
 * positions with zeros around the border, layer3's stretched to layer2's positions. dimensions > 0, a multiple of 2: D
 * = dimensions instead, by the released code's averages over neighbouring values; 0: all channels. */
rdpp_error rdpp_patches(const rdpp_tensor f[RDPP_SCALES], int64_t dimensions, rdpp_tensor *patches);

/* The search for a coreset of the patches in n >= 1 tensors of one type, numbered through all of them, which have D as
 * their last dimension. They may be freed afterwards, but must not be changed. signs: D x K of -1, 0 and 1, a random
 * projection but for a factor; NULL: none. start: numbers of n_start >= 1 patches, of which the first choice is
 * farthest on average. */
rdpp_error rdpp_coreset_new(const rdpp_tensor *patches, int64_t n, rdpp_tensor signs, const int64_t *start,
                            int64_t n_start, rdpp_coreset **out);
void rdpp_coreset_free(rdpp_coreset *c);
/* Chooses n more patches, each the farthest from all chosen before it; fewer where no more are left. The same ones for
 * any number of threads. *size: how many are chosen then. */
rdpp_error rdpp_coreset_grow(rdpp_coreset *c, int64_t n, int64_t *size);
/* The numbers of the chosen patches, size of them, in the order of their choice. */
rdpp_error rdpp_coreset_chosen(const rdpp_coreset *c, int64_t size, int64_t *numbers);
/* The chosen patches themselves, size x D, of the type and device of the first tensor. */
rdpp_error rdpp_coreset_patches(const rdpp_coreset *c, rdpp_tensor *patches);

/* A bank of count >= 1 patches of D dimensions, float32 or float64, all zero: a module with one entry, `patches`, count
 * x D. */
rdpp_error rdpp_bank_new(int64_t count, int64_t D, int32_t dtype, int32_t device, rdpp_module **out);

/* FastFlow */

typedef struct {
  int64_t side;      /* S of the images, a multiple of 32 */
  int64_t steps;     /* of each scale's flow */
  double hidden;     /* channels between a sub-network's two convolutions, per channel that it sees */
  int32_t pointwise; /* != 0: every second step's convolutions are 1x1, the others' 3x3; else all are 3x3 */
  double clamp;      /* of the logarithms of the couplings' scales */
  int32_t affine;    /* != 0: the layer norms have a weight and a bias for every value of an image's features */
} rdpp_fastflow_options;

/* The layer norms and flows of all scales: a module, whose fresh parameters and channels' orders are drawn from seed.
 * flags: as of rdpp_module_new. */
rdpp_error rdpp_fastflow_new(const char *arch, const rdpp_fastflow_options *options, int32_t dtype, int32_t device,
                             uint64_t seed, int32_t flags, rdpp_module **out);
/* f -> x, the same shapes, each image's features of a scale normalised; float32 also where f is bfloat16. */
rdpp_error rdpp_fastflow_normalise(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor x[RDPP_SCALES]);
/* x -> z, the same shapes, and log_det, B values per scale: logarithms of the determinants of z's derivatives by x. */
rdpp_error rdpp_fastflow(const rdpp_module *m, const rdpp_tensor x[RDPP_SCALES], rdpp_tensor z[RDPP_SCALES],
                         rdpp_tensor log_det[RDPP_SCALES]);
/* The way back, outside autograd. */
rdpp_error rdpp_fastflow_inverse(const rdpp_module *m, const rdpp_tensor z[RDPP_SCALES], rdpp_tensor x[RDPP_SCALES]);
/* The sum over scales of |z|^2 / 2 - log_det, averaged over images: a scalar. */
rdpp_error rdpp_loss_flow(const rdpp_tensor z[RDPP_SCALES], const rdpp_tensor log_det[RDPP_SCALES], rdpp_tensor *out);

/* CSFlow */

/* x: B x 3 x S x S, normalised -> y[k]: the teacher's coarsest features f[K-1] of x, of every second pixel of it and of
 * every fourth, B x C x ceil(S/(s*2^k)) x ceil(S/(s*2^k)), C being 256e and s 16 (efficientnet_b5: 304 and 32); outside
 * autograd. */
rdpp_error rdpp_pyramid(const rdpp_module *teacher, rdpp_tensor x, rdpp_tensor y[RDPP_SCALES]);

typedef struct {
  int64_t channels; /* of the features, at least 2 */
  int64_t blocks;   /* coupling blocks; the last one's kernels are 5x5, the others' 3x3 */
  int64_t hidden;   /* channels between the two layers of a sub-network */
  double clamp;     /* of the logarithms of the couplings' scales */
} rdpp_cross_flow_options;

/* A flow whose fresh parameters and channels' orders are drawn from seed. It maps features to themselves but for the
 * order of channels. flags: as of rdpp_module_new. */
rdpp_error rdpp_cross_flow_new(const rdpp_cross_flow_options *options, int32_t dtype, int32_t device, uint64_t seed,
                               int32_t flags, rdpp_module **out);
/* y[k]: B x C x H_k x W_k, H_k+1 = ceil(H_k / 2), W alike -> z, the shapes of y, and log_det: B, the logarithm of the
 * determinant of z's derivatives by y. */
rdpp_error rdpp_cross_flow(const rdpp_module *m, const rdpp_tensor y[RDPP_SCALES], rdpp_tensor z[RDPP_SCALES],
                           rdpp_tensor *log_det);
/* The way back, outside autograd. */
rdpp_error rdpp_cross_flow_inverse(const rdpp_module *m, const rdpp_tensor z[RDPP_SCALES], rdpp_tensor y[RDPP_SCALES]);
/* |z|^2 / 2 - log_det, averaged over images and divided by how many numbers an image has in z: a scalar. */
rdpp_error rdpp_loss_cross_flow(const rdpp_tensor z[RDPP_SCALES], rdpp_tensor log_det, rdpp_tensor *out);

/* CFA. D: dimensions of a descriptor, M rows of the bank, H and W here those of layer1's features, S/4. */

typedef struct {
  int64_t dimensions; /* D */
  int64_t rows;       /* M */
  double radius;      /* r of the spheres, with which training begins */
  int32_t fixed;      /* != 0: r stays as it is; else it learns */
} rdpp_descriptor_options;

/* A 1x1 convolution over the features of all scales and the coordinates, whose fresh parameters are drawn from seed,
 * and a bank of rows, `centres`: M x D, all zero, to be written over. flags: as of rdpp_module_new. */
rdpp_error rdpp_descriptor_new(const char *arch, const rdpp_descriptor_options *options, int32_t dtype, int32_t device,
                               uint64_t seed, int32_t flags, rdpp_module **out);
/* f -> phi: B x H x W x D. */
rdpp_error rdpp_descriptor(const rdpp_module *m, const rdpp_tensor f[RDPP_SCALES], rdpp_tensor *phi);

typedef struct {
  int64_t near, far; /* K rows nearest to a descriptor, which attract it, and the J next ones, which repel it */
  double margin;     /* alpha, by how much their squared distance may be less than r^2 */
  double nu;         /* what both terms are divided by */
  int64_t bytes;     /* of distances that are in memory at a time; those of one position are in any case */
} rdpp_sphere_loss_options;

/* Of squared distances d: the means of max(0, d - r^2) over positions and the K rows, and of max(0, r^2 - d - alpha)
 * over positions and the J rows, both divided by nu: scalars. */
rdpp_error rdpp_loss_spheres(const rdpp_module *m, rdpp_tensor phi, const rdpp_sphere_loss_options *options,
                             rdpp_tensor *attraction, rdpp_tensor *repulsion);
/* The search for the means of count clusters of points: N x D, float32 on the CPU: k-means++ from seed, then at most so
 * many of Lloyd's iterations. */
rdpp_error rdpp_clusters_new(rdpp_tensor points, int64_t count, int64_t most, uint64_t seed, rdpp_clusters **out);
void rdpp_clusters_free(rdpp_clusters *c);
/* Goes on for a fraction of a second; done: whether the means are found. */
rdpp_error rdpp_clusters_step(rdpp_clusters *c, int32_t *done);
/* Once they are: count x D. */
rdpp_error rdpp_clusters_centres(const rdpp_clusters *c, rdpp_tensor *centres);

/* Processes that train one model. A batch is dealt out in turn: rank r of `size` has its images r, r + size, ... One
 * that gets none computes with an image that does not count, so that all call the same functions in the same order.
 * What waits for others fails with RDPP_PEER_LOST. */

typedef struct {
  const char *host; /* where the processes meet */
  int32_t port;
  int32_t server;      /* != 0: this process has the store that they meet at */
  const char *name;    /* before the keys of the store */
  const char *network; /* the network interface to talk over; empty: the one that this machine's name leads to */
  int32_t rank, size;  /* this process, from 0, and how many there are */
  int64_t patience_ms; /* for all to come */
} rdpp_meeting;

/* Waits until all are there. device: that of the tensors: between CUDA devices NCCL carries them, where libtorch has
 * it, else gloo. RDPP_UNSUPPORTED where this libtorch has no gloo. */
rdpp_error rdpp_group_new(const rdpp_meeting *meeting, int32_t device, rdpp_group **out);
/* Modules that share it hold it too. */
void rdpp_group_free(rdpp_group *g);
/* From any thread: whatever waits for another process, or will, fails with this text. */
rdpp_error rdpp_group_end(rdpp_group *g, const char *why);
/* The batch at hand has B images, of all processes. */
rdpp_error rdpp_group_deal(rdpp_group *g, int64_t B);
/* t becomes the sum over all processes' t, of the same shape; or rank 0's. Outside autograd. */
rdpp_error rdpp_group_sum(rdpp_group *g, rdpp_tensor t);
rdpp_error rdpp_group_take_first(rdpp_group *g, rdpp_tensor t);
/* This process's rows of the batch -> all B rows, in the batch's order; bfloat16 becomes float32. The gradient of a row
 * is the sum over processes. Scales that are NULL stay so. */
rdpp_error rdpp_group_batch(rdpp_group *g, const rdpp_tensor x[RDPP_SCALES], rdpp_tensor all[RDPP_SCALES]);
/* In training mode m's batch norms have the statistics of the whole batch from now on. g NULL: of their own rows. */
rdpp_error rdpp_group_share(rdpp_group *g, rdpp_module *m);
/* The gradients that wait for a step become their sums over all processes. */
rdpp_error rdpp_adam_sum(rdpp_adam *a, rdpp_group *g);

/* TorchScript */

/* Compiles source, the text of a module's methods in TorchScript, with n tensors under the given names as its
 * parameters and buffers, and writes the module to the open file descriptor fd, from front to back, so that a pipe will
 * do. extra: names and contents, in turn, of n_extra further entries of the file. */
rdpp_error rdpp_script_save(const char *source, const char *const *names, const rdpp_tensor *tensors, int64_t n,
                            const char *const *extra, int64_t n_extra, int32_t fd);

#ifdef __cplusplus
}
#endif
#endif
