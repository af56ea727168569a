package VMware::VmPerl::KnownHosts;

# Trust on first use: the fingerprint of a host's certificate is kept, and must be the same ever after.
#
#   file   $VMCONTROL_KNOWN_HOSTS, else $HOME/.vmware/vmcontrol_hosts
#   line   host:port sha256:<64 hex digits of the certificate's DER form>

use strict;
use warnings;

use Fcntl qw(:flock O_RDWR O_CREAT SEEK_SET SEEK_END);

our $VERSION = '1.0.0';

# The file, or undef when there is no home directory.
sub file {
    my ($environment) = @_;
    my $file = $environment->{VMCONTROL_KNOWN_HOSTS};
    return $file if defined $file && length $file;
    my $home = $environment->{HOME};
    $home = (getpwuid $>)[7] if !defined $home || !length $home;
    return defined $home && length $home ? "$home/.vmware/vmcontrol_hosts" : undef;
}

# Compares a fingerprint with the one that is kept, or keeps it. Returns nothing when all is well,
# else a sentence, and whether the certificate is another one than before (as opposed to a file that
# cannot be used).
sub check {
    my ($file, $host, $fingerprint) = @_;
    return ('there is no home directory to keep the fingerprint of the certificate in; name a file with VMCONTROL_KNOWN_HOSTS', 0)
        if !defined $file;
    $host = lc $host;
    if (my ($directory) = $file =~ m{^(.+)/[^/]+$}) {
        mkdir $directory, 0700 if !-d $directory;
    }
    # The lock is held from the look to the end of the line that is added: two first uses at once
    # agree on one certificate.
    sysopen my $handle, $file, O_RDWR | O_CREAT, 0600
        or return ("the fingerprint of the certificate cannot be kept in $file: $!; name another file with VMCONTROL_KNOWN_HOSTS", 0);
    flock $handle, LOCK_EX or return ("cannot lock $file: $!", 0);
    my $last = "\n";
    while (my $line = <$handle>) {
        $last = $line;
        next if $line =~ /^\s*(?:\#|$)/;
        my ($name, $kept) = split ' ', $line;
        next if !defined $kept || lc $name ne $host;
        return if lc $kept eq $fingerprint;
        return ("the certificate of $host is not the one that was seen first (then $kept, now $fingerprint); "
              . "if it was changed on purpose, remove the line of $host from $file", 1);
    }
    seek $handle, 0, SEEK_END;
    my $text = ($last =~ /\n\z/ ? '' : "\n") . "$host $fingerprint\n";
    my $written = syswrite $handle, $text;
    return ("cannot write $file: $!", 0) if !defined $written || $written != length $text;
    return;
}

1;

__END__

=head1 NAME

VMware::VmPerl::KnownHosts - certificates seen before

=head1 DESCRIPTION

Inner part of L<VMware::VmPerl>. Certificates of this software are self-signed as a rule; so the first one seen
of a host and port is kept in F<~/.vmware/vmcontrol_hosts> (or the file named by C<VMCONTROL_KNOWN_HOSTS>), and
another one later is an error that says which line to remove.

=cut
