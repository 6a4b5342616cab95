/* Plays a tone of 16 bits at 48 kHz in stereo by the old interface, as loud as it gets, and
   records a little. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/soundcard.h>
#include <unistd.h>

#define FRAMES 24000

static void must(int is_so, const char *what)
{
    if (!is_so) {
        perror(what);
        exit(1);
    }
}

static int device(int flags)
{
    int format = AFMT_S16_LE, channels = 2, rate = 48000;
    int dsp = open("/dev/dsp", flags);
    must(dsp >= 0, "/dev/dsp");
    must(!ioctl(dsp, SNDCTL_DSP_SETFMT, &format) && format == AFMT_S16_LE, "format");
    must(!ioctl(dsp, SNDCTL_DSP_CHANNELS, &channels) && channels == 2, "channels");
    must(!ioctl(dsp, SNDCTL_DSP_SPEED, &rate) && rate == 48000, "rate");
    return dsp;
}

int main(void)
{
    int mixer = open("/dev/mixer", O_RDWR), loud = 100 | 100 << 8;
    must(mixer >= 0, "/dev/mixer");
    ioctl(mixer, SOUND_MIXER_WRITE_VOLUME, &loud);
    ioctl(mixer, SOUND_MIXER_WRITE_PCM, &loud);
    static short tone[FRAMES][2];
    for (int n = 0; n < FRAMES; n++) {
        tone[n][0] = (short)(n * 37 % 20001 - 10000); /* a saw, and a number that tells the place */
        tone[n][1] = (short)(n + 1);
    }
    int dsp = device(O_WRONLY);
    must(write(dsp, tone, sizeof tone) == (ssize_t)sizeof tone, "write");
    must(!ioctl(dsp, SNDCTL_DSP_SYNC, 0), "sync");
    close(dsp);
    puts("played");
    dsp = open("/dev/dsp", O_RDONLY);
    if (dsp >= 0) {
        close(dsp);
        dsp = device(O_RDONLY);
        static short heard[4800][2];
        for (size_t at = 0; at < sizeof heard;) {
            ssize_t count = read(dsp, (char *)heard + at, sizeof heard - at);
            must(count > 0, "read");
            at += (size_t)count;
        }
        for (int n = 0; n < 4800; n++)
            must(!heard[n][0] && !heard[n][1], "silence");
        puts("recorded");
    }
    return 0;
}
