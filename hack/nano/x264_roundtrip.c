/*
 * One clip through libx264 and back, in memory, for training.
 *
 * The encoder reconstructs every frame that a decoder would show; asking for it (b_full_recon) gives the decoded clip
 * without a container or a decoder. Encoding small clips this way is fast enough to draw new codec artefacts for every
 * training clip, and it needs neither FFmpeg nor Python packages on the training machine:
 *
 *     gcc -O2 -shared -fPIC -o libroundtrip.so x264_roundtrip.c -lx264 -Wl,-rpath,$ORIGIN
 */
#include <stdint.h>
#include <string.h>
#include <x264.h>

static void copy_plane(uint8_t *to, const uint8_t *from, int stride, int width, int height) {
    for (int row = 0; row < height; row++) memcpy(to + (size_t)row * width, from + (size_t)row * stride, width);
}

/* Stores one reconstructed frame at its place in display order. */
static void keep(uint8_t *clip, const x264_picture_t *shown, int width, int height) {
    size_t luma = (size_t)width * height, chroma = luma / 4;
    uint8_t *frame = clip + (size_t)shown->i_pts * (luma + 2 * chroma);
    copy_plane(frame, shown->img.plane[0], shown->img.i_stride[0], width, height);
    if (shown->img.i_plane == 3) {
        copy_plane(frame + luma, shown->img.plane[1], shown->img.i_stride[1], width / 2, height / 2);
        copy_plane(frame + luma + chroma, shown->img.plane[2], shown->img.i_stride[2], width / 2, height / 2);
        return;
    }
    for (int row = 0; row < height / 2; row++) { /* NV12: the encoder's own layout */
        const uint8_t *pair = shown->img.plane[1] + (size_t)row * shown->img.i_stride[1];
        for (int column = 0; column < width / 2; column++) {
            frame[luma + (size_t)row * (width / 2) + column] = pair[2 * column];
            frame[luma + chroma + (size_t)row * (width / 2) + column] = pair[2 * column + 1];
        }
    }
}

/*
 * Replaces `clip` (frames of planar 4:2:0: Y, U, V) by what a decoder shows after encoding it at `crf`.
 * Returns the coded size in bytes, or -1.
 */
long x264_roundtrip(uint8_t *clip, int frames, int width, int height, float crf) {
    x264_param_t settings;
    if (x264_param_default_preset(&settings, "medium", NULL) < 0) return -1;
    settings.i_log_level = X264_LOG_NONE;
    settings.i_threads = 1;
    settings.i_width = width;
    settings.i_height = height;
    settings.i_csp = X264_CSP_I420;
    settings.i_fps_num = 25;
    settings.i_fps_den = 1;
    settings.b_vfr_input = 0;
    settings.b_full_recon = 1;
    settings.rc.i_rc_method = X264_RC_CRF;
    settings.rc.f_rf_constant = crf;
    x264_t *encoder = x264_encoder_open(&settings);
    if (!encoder) return -1;

    size_t luma = (size_t)width * height, size = luma * 3 / 2;
    long bytes = 0;
    int fed = 0;
    x264_picture_t input, shown;
    x264_nal_t *units;
    int count;
    while (fed < frames || x264_encoder_delayed_frames(encoder) > 0) {
        x264_picture_init(&input);
        input.img.i_csp = X264_CSP_I420;
        input.img.i_plane = 3;
        if (fed < frames) {
            /* Read frames are copied by the encoder at once; a frame is overwritten only after it was read. */
            uint8_t *frame = clip + size * fed;
            input.img.plane[0] = frame;
            input.img.plane[1] = frame + luma;
            input.img.plane[2] = frame + luma + luma / 4;
            input.img.i_stride[0] = width;
            input.img.i_stride[1] = input.img.i_stride[2] = width / 2;
            input.i_pts = fed++;
            int coded = x264_encoder_encode(encoder, &units, &count, &input, &shown);
            if (coded < 0) { bytes = -1; break; }
            bytes += coded;
            if (coded > 0) keep(clip, &shown, width, height);
        } else {
            int coded = x264_encoder_encode(encoder, &units, &count, NULL, &shown);
            if (coded < 0) { bytes = -1; break; }
            bytes += coded;
            if (coded > 0) keep(clip, &shown, width, height);
        }
    }
    x264_encoder_close(encoder);
    return bytes;
}
